"""The contract's cases: small systems on generated data, each compiled once.

A new system needs a line here only if the defaults do not fit it: options in `CASES`, data in
`DATA`, a learning rate in `LEARNING_RATES`.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shape_data import open_shapes

from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.data.generated.worlds.clips import open_clips
from hmgr_jax.data.generated.worlds.questions import Worlds, open_bank, open_questions
from hmgr_jax.data.pictures.pixels import Augmentation
from hmgr_jax.data.pipeline import Batches
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.distributed.parallel import MappedAxis, make_mesh, map_step, replicate, shard
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import defaults, get_model, list_models
from hmgr_jax.models.base import LocalAxis, Model, Plan, Variables
from hmgr_jax.training.experiment import classes_of, item_shapes
from hmgr_jax.training.optimizer import Optimizer, Schedule
from hmgr_jax.training.step import State, device_step, init_state

# Options of every small system that has them; all dropouts are on too. Sizes of codes differ from
# all block sizes, so that an array cut along the wrong axis changes a result.
SMALL = {
    "dim": 20,
    "word_dim": 8,
    "slots": 20,
    "read_top": 4,
    "graph_layers": 1,
    "sharpness": 4.0,
    "heads": 4,
    "gate_dim": 8,
    "views": 3,
    "image_hidden": (16,),
    "bert_layers": 2,
    "bert_width": 20,
    "bert_heads": 2,
    "bert_intermediate": 18,
    "bert_positions": 64,
    "clip_layers": 2,
    "clip_width": 16,
    "clip_heads": 2,
    "clip_intermediate": 18,
    "clip_positions": 64,
    "picture_layers": 2,
    "picture_width": 16,
    "picture_heads": 2,
    "picture_intermediate": 18,
    "picture_patch": 8,
    "width": 20,
    "layers": 2,
    "intermediate": 24,
    "positions": 64,
    "k_train": 3,
    "k_test": 2,
}
CAPTIONED = tuple(name for name in list_models() if "text" in get_model(name).modalities)
"""Systems that read captions, for tests of worlds."""
DROPOUT = 0.2
# {case: (registered system, its options)}: every system, and variants with other code paths. Only
# the systems themselves are scored in tiles: their variants score pairs as they do.
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in list_models()}
VIDEO = {"visual": "video", "frames": 5, "frame_sampling": "random"}
TOWERS = ("hmgr-bert", "vse-clip")
"""Variants in a tower alone, which dxr and clip train on eight devices."""
CASES["hmgr-bert"] = ("hmgr", {"text": "bert"})
CASES["vse-clip"] = ("vse", {"text": "clip"})
# SigLIP's towers and loss; blocks are recomputed.
SIGMOID = {"clip_kind": "siglip", "objective": "sigmoid", "dim": 16}
CASES["clip-sigmoid"] = ("clip", SIGMOID | {"checkpoint": True, "bias": -2.0})
# Maps, gates and temperatures that training learns; the bank holds more than a batch.
LEARNED = {"learned_reads": True, "visual_read": 0.2, "slots": 30, "text": "words"}
CASES["hmgr-learned"] = ("hmgr", LEARNED | {"objective": "infonce"})
CASES["hmgr-video"] = ("hmgr", VIDEO | {"frame_positions": True, "frame_times": True})
# Thresholds that a step of training sets, and that later ones use.
CASES["resg"] = ("resg", {"calibration_step": 3})
# Uniformity of some of the samples, drawn in both ways; a CNN with batch norm over all devices.
UNIFORM = {"uniform_lambda": 1.0, "uniform_rows": 24}
CASES["pcme"] = ("pcme", UNIFORM | {"uniform_replace": True})
PIXELS = {"cnn": "resnet10", "cnn_width": 4, "cnn_small_stem": True}
# Every term that depends on random numbers or on the other side of a pair.
STUDIED = {"all_pairs": False, "interaction": "batch_cross", "input_mask": True, "lambda_rec": 0.1}
STUDIED |= {"edges": ("pair", "het", "homo", "self"), "lambda_self": 0.1, "fusion": "concat"}
CASES["gpldan-studied"] = ("gpldan", STUDIED | {"modality_cls": "grl"})
CASES["pcme-pixels"] = ("pcme", UNIFORM | PIXELS)
# The learned metric starts with two small factors: its gradients are too small for few steps.
CASES["gin"] = ("gin", {"metric": "cosine", "l2": 1e-3})
CASES["gin-labels"] = ("gin", {"metric": "cosine", "match": "label"})
CASES["sckr"] = ("sckr", {"metric": "cosine"})
# Small encoders; then two modalities, with moving centres that start at the mean of a batch.
SHAPES = PIXELS | {"cloud_width": 4, "mesh_width": 4, "neighbours": 5, "head_dim": 8}
SHAPES |= {"views_test": 1, "dim": 16}  # no blocks; at 20 one device drifts from eight
CASES["center3d"] = ("center3d", SHAPES)
MOVING = {"center_update": "wen_ema", "center_init": "batch_mean", "cloud_encoder": "pointnet"}
CASES["center3d-moving"] = ("center3d", SHAPES | MOVING | {"modalities": ("image", "point")})
# One reader with captions and vectors of pictures, the other with captions alone.
CASES["xtra"] = ("xtra", {"retrieve": "both", "picture_dim": 5})
CASES["xtra-mcan"] = ("xtra", {"reader": "mcan", "query": "question"})
# Other losses with the objective InfoNCE, for the part of the contract that it concerns. RACG adds
# a term to IMRAM's, whatever the objective.
RANKED = ("vse", "imram", "resg", "dxr")
INFONCE = {f"{name}-infonce": (name, {"objective": "infonce"}) for name in RANKED}
# {case, or modalities of all other cases: data set}
SIZES = {"train": 32, "dev": 8, "test": 8}
SMALL_PICTURES = Augmentation(size=16, resize=16, train="centre", flip=0.0)
DATA = {
    "gpldan": lambda: open_worlds(**SIZES, features=True),
    "gpldan-studied": lambda: data_of("gpldan"),
    "gin-labels": lambda: data_of("gpldan"),
    "pcme-pixels": lambda: open_worlds(**SIZES, pictures=True, augmentation=SMALL_PICTURES),
    "clip": lambda: data_of("pcme-pixels"),
    "clip-sigmoid": lambda: data_of("pcme-pixels"),
    "center3d": open_shapes,
    "center3d-moving": open_shapes,
    ("image", "text"): lambda: open_worlds(**SIZES),
    ("video", "text"): lambda: open_clips(**SIZES),
    ("question", "answer"): lambda: open_questions(Worlds(**SIZES)),
}
# Inputs that count the valid entries of other inputs; the rest is padding.
COUNTS = ("n_regions", "n_frames", "lengths")
TOKENS = ("tokens", "heads", "relations")
"""Inputs that ``lengths`` counts; the other counts are of visual inputs."""
STEPS, EPOCH = 20, 5
FIT_STEPS = 240
"""Most steps on one batch until a system must have learned it."""
LOW_WHEN_CONSTANT = ("gpldan", "gpldan-studied")
"""Cases whose loss is low where all codes are equal: graph pattern loss compares distances, and
equal codes have none. Their loss must halve, and positives must lead all the same."""
LEARNING_RATE = 0.005
"""Low: rounding errors between one and eight devices grow with the step size."""
LEARNING_RATES = {"resg": 0.0015, "pcme-pixels": 0.002, "gin": 0.1, "sckr": 0.1, "gin-labels": 0.1}
LEARNING_RATES |= {"vse-clip": 0.0012, "center3d": 0.0009, "center3d-moving": 0.002, "dxr": 0.05}
LEARNING_RATES |= {"clip-sigmoid": 0.002, "imram": 0.002, "scan": 0.002, "imram-infonce": 0.001}
"""{case: its learning rate}, where `LEARNING_RATE` does not fit.

Higher if a system does not learn within `STEPS` steps (GIN's loss is a mean over all pairs, not a
sum); lower if one and eight devices drift apart (ReSG adds up three losses, and norms by the batch
pass rounding errors of one row on to all others).
"""
ROWS, DEVICES = 12, 8
"""Eight devices do not divide twelve rows: four rows are added that are not valid."""
LENGTH = 28
"""Padded words of a caption."""
BATCH = 8
"""Items encoded at once at evaluation."""
FAST = ("hmgr", "imram", "pcme", "gin", "center3d", "xtra")
"""Cases of the default test run; the others are marked slow, and CI runs them."""
PMAPPED = {
    "hmgr": {"gather", "index", "mean", "sum"},
    "imram": {"gather", "index", "mean", "pair_rows", "sum"},
    "pcme-pixels": {"gather", "mean", "sum"},
}
"""{case: the methods of `MappedAxis` that its step calls}, for tests of pmap. The mapper is the
same for every system, so that a few cases do; a test checks that no system calls anything else."""

_compilations: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: _compilations.append(event) if "backend_compile" in event else None
)


def compilations() -> int:
    """Number of programs compiled or read from the cache so far."""
    assert _compilations, "JAX reports compilations under another name: nothing would be counted"
    return len(_compilations)


def params_of(cases: Iterable[str], fast: Iterable[str] = FAST) -> list[Any]:
    """Parameters of a test over cases: slow unless in ``fast``, one xdist group per case.

    With ``--dist loadgroup`` all tests of a case run in one worker, which compiles it once.
    """
    return [
        pytest.param(
            case,
            marks=[pytest.mark.xdist_group(case), *([] if case in fast else [pytest.mark.slow])],
        )
        for case in cases
    ]


@cache
def data_of(key: str | tuple[str, ...]) -> DataSet:
    return DATA[key]()


@cache
def small(case: str) -> "System":
    """A system of `CASES` or `INFONCE` with small sizes."""
    name, options = (CASES | INFONCE)[case]
    fields = defaults(name)
    chosen = {key: value for key, value in SMALL.items() if key in fields}
    chosen |= {key: DROPOUT for key in fields if key.endswith("dropout")}
    rate = LEARNING_RATES.get(case, LEARNING_RATE)
    return System(get_model(name, **(chosen | options)), rate, case)


class System:
    """A model fitted to its data, and everything that its tests share."""

    def __init__(
        self, model: Model, learning_rate: float = LEARNING_RATE, case: str = "toy"
    ) -> None:
        self.case = case
        self.data = data_of(case if case in DATA else model.modalities)
        train = self.data.splits["train"]
        classes = classes_of(train)
        plan = Plan(STEPS, EPOCH, len(self.data.vocabulary), item_shapes(train), classes)
        self.model = watched(model.fit_to(plan))
        # Not Adam: it turns rounding errors of a zero gradient into full steps.
        schedule = Schedule(learning_rate, STEPS, decay="none")
        self.optimizer = Optimizer(schedule, self.model.parts(), kind="sgd")

    def start(self, seed: int = 0) -> State:
        """A fresh state, on the host."""
        return jax.device_get(self._init(jnp.int32(seed)))

    @cached_property
    def _init(self) -> Any:
        return jax.jit(lambda seed: init_state(self.model, self.optimizer, seed))

    @cached_property
    def tables(self) -> Any:
        """The tables that the model makes, or retrieved captions; else None."""
        if self.model.banks is not None:
            return retrieved_tables()
        self.start()
        if not self.model.made[0]:
            return None
        return jax.jit(self.model.init)(jax.random.key(0)).tables

    def batch(self, step: int, devices: int = 1) -> dict[str, Any]:
        """The batch of a step: ``ROWS`` rows, filled up to a multiple of ``devices``."""
        of_step = Batches(
            self.data.splits["train"],
            batch_size=ROWS,
            seed=0,
            pad_to=devices,
            buckets=(LENGTH,),
        )
        batch = of_step[step]
        row = {k: v for k, v in batch["row"].items() if k != "labels" or self.model.needs_labels}
        return {m: self.wanted(m, batch[m]) for m in self.model.modalities} | {"row": row}

    def wanted(self, modality: str, items: Mapping[str, Any]) -> dict[str, Any]:
        return {name: items[name] for name in self.model.inputs()[modality] if name in items}

    def items(self, modality: str, numbers: Any, length: int = LENGTH) -> dict[str, Any]:
        """Items of the test split by number."""
        source = self.data.splits["test"].sources[modality]
        padded = length if source.lengths is not None else None
        return self.wanted(modality, source.gather(np.asarray(numbers), padded))

    # --- training -----------------------------------------------------------------------------

    @cached_property
    def one(self) -> "Run":
        return Run(self, 1, "shard_map")

    @cached_property
    def eight(self) -> "Run":
        if self.case in TOWERS:
            pytest.skip("the devices are tested with the systems that share these towers")
        return Run(self, DEVICES, "shard_map")

    @cached_property
    def pmapped(self) -> "Run":
        return Run(self, DEVICES, "pmap")

    # --- learning -----------------------------------------------------------------------------

    @cached_property
    def _loss(self) -> Any:
        def loss(state: State, tables: Any, batch: Any, constant: jax.Array) -> jax.Array:
            row, variables = batch["row"], state.variables(tables)
            given: dict[str, Any] = {"keys": Keys.at(state.seed, state.step, row["index"])}
            given["axis"] = LocalAxis()
            codes, stats = self.model.encode_batch(variables, batch, row, **given)
            codes = jax.tree.map(lambda x: jnp.where(constant, of_all(x), x), codes)
            variables = dataclasses.replace(variables, stats=stats)
            return self.model.loss(variables, codes, row, step=state.step, **given)[0]

        return jax.jit(loss)

    def leads(self, state: State) -> bool:
        """Whether positives score above negatives in every pair of modalities."""
        return all(positive > negative for positive, negative in self.mean_scores(state).values())

    def loss(self, state: State, *, constant: bool = False) -> float:
        """The loss of the first batch with the random numbers and the schedule of step 0.

        With ``constant`` all items have their mean code: the loss of a collapsed model.
        """
        state = jax.device_get(state).replace(step=np.int32(0))
        return float(self._loss(state, self.tables, self.batch(0), jnp.bool_(constant)))

    @cached_property
    def fitted(self) -> State:
        """After steps on the first batch alone, each with the random numbers of step 0.

        Stops when the loss is well below that of constant codes and positives lead, at the latest
        after ``FIT_STEPS``.
        """
        batch, state = self.batch(0), self.start()
        for step in range(FIT_STEPS):
            state = jax.device_get(self.one.once(state, batch)[0]).replace(step=np.int32(0))
            low = step % 20 == 19 and self.loss(state) < 0.8 * self.loss(state, constant=True)
            if low and self.leads(state):
                break
        return state

    def mean_scores(self, state: State) -> dict[tuple[str, str], tuple[float, float]]:
        """{pair of modalities: mean score of (positives, negatives)} in the first batch."""
        batch, variables = self.batch(0), state.variables(self.tables)
        row, found = {name: x[:BATCH] for name, x in batch["row"].items()}, {}
        positive = row["group"][:, None] == row["group"][None, :]
        if "labels" in row:
            positive = row["labels"] @ row["labels"].T > 0
        items = {m: {n: x[:BATCH] for n, x in batch[m].items()} for m in self.model.modalities}
        if "answer" in items:  # of each question the answer of most annotators
            answers = row["labels"].argmax(axis=1).astype(np.int32)
            items["answer"], positive = {"number": answers}, row["labels"][:, answers] > 0
        codes = {m: self._encode(variables, m, items[m], row["index"]) for m in items}
        for a, b in self.pairs:
            scores = np.asarray(self._score(variables, a, b, codes[a], codes[b]))
            found[a, b] = (float(scores[positive].mean()), float(scores[~positive].mean()))
        return found

    # --- evaluation ---------------------------------------------------------------------------

    @cached_property
    def evaluator(self) -> Evaluator:
        """Over eight devices; one tile holds all scores."""
        sizes = {"batch_size": BATCH, "buckets": (LENGTH,)}
        return Evaluator(self.model, make_mesh(DEVICES), **sizes)

    @cached_property
    def trained(self) -> Variables:
        return self.one.end.state.variables(self.tables)

    @cached_property
    def _encode(self) -> Any:
        def encode(variables: Variables, modality: str, items: Any, numbers: Any) -> Any:
            keys = Keys.at(jnp.int32(0), jnp.int32(0), numbers)
            return self.model.encode(variables, modality, items, train=False, keys=keys)[0]

        return jax.jit(encode, static_argnums=1)

    def encode(self, modality: str, numbers: Any, items: Any = None) -> Any:
        """Inference codes of the trained system; default items: those of the test split."""
        items = self.items(modality, numbers) if items is None else items
        return self._encode(self.trained, modality, items, jnp.asarray(numbers, jnp.int32))

    @cached_property
    def _score(self) -> Any:
        def score(variables: Variables, a: str, b: str, codes_a: Any, codes_b: Any) -> Any:
            return self.model.score(variables, (a, codes_a), (b, codes_b))

        return jax.jit(score, static_argnums=(1, 2))

    def score(self, a: str, codes_a: Any, b: str, codes_b: Any) -> np.ndarray:
        return np.asarray(self._score(self.trained, a, b, codes_a, codes_b))

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        return list(itertools.combinations(self.model.modalities, 2))


@dataclass
class End:
    """A run's last state and its reports, on the devices."""

    state: State
    reports: list[dict[str, jax.Array]]
    compiled_later: int
    """Programs compiled after the first step."""

    def of_steps(self, name: str) -> np.ndarray:
        return np.array([float(report[name]) for report in self.reports])


class Run:
    """A compiled step over some devices."""

    def __init__(self, system: System, devices: int, mapper: str) -> None:
        self.system, self.devices = system, devices
        self.mesh = make_mesh(devices)
        self.axis = WatchedAxis()
        step = device_step(system.model, system.optimizer, self.axis)
        self._step = map_step(step, self.mesh, mapper)
        self._tables = replicate(self.mesh, system.tables)

    def once(self, state: State, batch: Any, tables: Any = None) -> tuple[State, dict[str, Any]]:
        """One step from a state on the host, which is not donated."""
        tables = self._tables if tables is None else replicate(self.mesh, tables)
        return self._step(replicate(self.mesh, state), tables, shard(self.mesh, batch))

    @cached_property
    def end(self) -> End:
        """After ``STEPS`` steps over the training data."""
        state = replicate(self.mesh, self.system.start())
        reports, compiled = [], 0
        for step in range(STEPS):
            batch = shard(self.mesh, self.system.batch(step, self.devices))
            state, report = self._step(state, self._tables, batch)
            reports.append(report)
            compiled = compiled or compilations()
        return End(state, reports, compilations() - compiled)


class WatchedAxis(MappedAxis):
    """An axis that records by name which of its methods traces call."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        for name in ("index", "gather", "mean", "sum", "exchange", "sum_of_rows", "pair_rows"):
            setattr(self, name, self._recording(name, getattr(self, name)))

    def _recording(self, name: str, method: Any) -> Any:
        def call(*given: Any) -> Any:
            self.used.add(name)
            return method(*given)

        return call


def watched(model: Model) -> Model:
    """``model`` that records its traces.

    ``seen`` lists for each trace of ``loss`` the rows of ``row`` and of the codes, ``made`` for
    each trace of ``init`` whether it makes tables.
    """

    class Watched(type(model)):  # type: ignore[misc]
        seen: list[tuple[int, set[int]]] = []  # noqa: RUF012
        made: list[bool] = []  # noqa: RUF012

        def init(self, key, tables=None):
            found = super().init(key, tables)
            self.made.append(bool(jax.tree.leaves(found.tables)))
            return found

        def loss(self, variables, codes, row, **others):
            rows = {x.shape[0] for x in jax.tree.leaves(codes)}
            self.seen.append((row["index"].shape[0], rows))
            return super().loss(variables, codes, row, **others)

    return Watched(**{f.name: getattr(model, f.name) for f in dataclasses.fields(model)})


def of_all(x: jax.Array) -> jax.Array:
    """One code for all items [1, ...]: their mean, or the first one's mask or count."""
    return x.mean(axis=0, keepdims=True) if jnp.issubdtype(x.dtype, jnp.floating) else x[:1]


def with_garbage(items: Mapping[str, Any]) -> dict[str, Any]:
    """The items with large values (or other words) in their padding."""
    found = dict(items)
    for count in COUNTS:
        for name in items if count in items else ():
            x = items[name]
            if x.ndim < 2 or (name in TOKENS) != (count == "lengths"):
                continue
            place = np.arange(x.shape[1]).reshape(1, -1, *[1] * (x.ndim - 2))
            true = place < items[count].reshape(-1, *[1] * (x.ndim - 1))
            assert not true.all(), f"no {name} is padded: choose other items"
            found[name] = np.where(true, x, np.asarray(7, x.dtype))
    return found


@cache
def retrieved_tables() -> dict[str, np.ndarray]:
    """Tables of random search results in the bank of the questions; some results are missing."""
    data, bank = data_of(("question", "answer")), open_bank(Worlds(**SIZES), "main")
    captions = CaptionSource([tokenize(caption) for caption in bank.captions], data.vocabulary)
    found = captions.gather(np.arange(len(captions)), 20)
    draws = np.random.default_rng(0)
    return {
        "captions": found["tokens"],
        "lengths": found["lengths"],
        "retrieved": draws.integers(-1, len(captions), (6 * len(captions), 4), np.int32),
        "vectors": draws.standard_normal((len(captions), 5), np.float32),
    }


# --- comparisons ------------------------------------------------------------------------------


def assert_equal(a: Any, b: Any) -> None:
    """Two trees are equal in every bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=name)


def assert_close(a: Any, b: Any, rtol: float, atol: float) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol, atol, err_msg=name)


def assert_same_everywhere(tree: Any) -> None:
    """Every device holds the same bits."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        values = [np.asarray(s.data) for s in leaf.addressable_shards]
        name = jax.tree_util.keystr(path)
        for value in values[1:]:
            np.testing.assert_array_equal(value, values[0], err_msg=f"{name} on another device")


def assert_devices_agree(one: Run, many: Run) -> None:
    """The same losses, parameters, statistics and memory, and the same bits on every device."""
    assert len(many.mesh.devices.flat) > 1
    assert_same_everywhere((many.end.state, many.end.reports))
    for name in one.end.reports[0]:
        a, b = one.end.of_steps(name), many.end.of_steps(name)
        np.testing.assert_allclose(b, a, rtol=1e-4 if name == "grad_norm" else 1e-5, atol=1e-6)
    a, b = one.end.state, many.end.state
    for name in ("params", "stats", "memory"):
        assert_close(getattr(b, name), getattr(a, name), rtol=1e-4, atol=1e-5)


def assert_learns(system: System) -> None:
    """A system fits one batch: the loss leaves the plateau of constant scores, positives lead.

    A falling loss is not enough: with hard negatives it also falls to 2 · margin · B, the loss of
    a model that gives all items the same code.
    """
    hint = f"set LEARNING_RATES[{system.case!r}] in tests/contract_cases.py (now "
    hint += f"{system.optimizer.schedule.lr}), or repair the loss"
    state = system.fitted
    start, end = system.loss(system.start()), system.loss(state)
    plateau = system.loss(state, constant=True)
    assert end < 0.9 * start, f"the loss did not fall, {start:.4g} to {end:.4g}: {hint}"
    if system.case in LOW_WHEN_CONSTANT:
        assert end < 0.5 * start, f"the loss did not halve, {start:.4g} to {end:.4g}: {hint}"
    else:
        assert end < 0.9 * plateau, f"loss {end:.4g}, {plateau:.4g} with constant codes: {hint}"
    for (a, b), (positive, negative) in system.mean_scores(state).items():
        assert positive > negative, (
            f"{a} to {b}: positives score {positive:.4g}, negatives {negative:.4g}: {hint}"
        )
