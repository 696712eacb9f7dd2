"""Build what a run needs from its configuration: data, model, schedule, devices, first state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from hmgr_jax.data.open import open_data
from hmgr_jax.data.order import steps_per_epoch
from hmgr_jax.data.pipeline import check_lengths
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.vectors import class_vectors, read_class_names
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.data.words import word_vectors
from hmgr_jax.distributed.parallel import MappedAxis, make_mesh, map_step, shardings
from hmgr_jax.errors import UserError
from hmgr_jax.leaves import leaf_at, with_leaf
from hmgr_jax.models import get_model
from hmgr_jax.models.base import NUMBER_OF, Feature, Model, Plan, select_inputs
from hmgr_jax.models.text_side import STATES
from hmgr_jax.training.check import check, check_calibration, check_parts
from hmgr_jax.training.optimizer import Optimizer, Schedule, Stage
from hmgr_jax.training.pretrained import pretrained, read_tokens, runs_and_files, untrained
from hmgr_jax.training.step import State, device_step, init_state
from hmgr_jax.training.warm_start import warm_start

INPUT_NAMES = dict.fromkeys(("heads", "relations"), "word graphs")
WORD_GRAPHS = (
    "put a _caps.conllu file beside the captions of every split (python -m hmgr_jax.prepare "
    "dependencies makes them), or leave model.text_support and model.text_edges at auto."
)


@dataclass(frozen=True)
class Experiment:
    """A run before its first step."""

    config: ConfigDict
    data: DataSet
    model: Model
    plan: Plan
    mesh: Mesh

    def stages(self) -> tuple[Stage, ...]:
        """The stages of training; by default one of all steps."""
        train = self.config.train
        common: dict[str, Any] = {
            "frozen": tuple(train.frozen),
            "lr_factors": dict(train.lr_factors),
        }
        given, first = [], 0
        for number, stage in enumerate(train.stages, start=1):
            last = {"steps": train.steps - first} if number == len(train.stages) else {}
            given.append(Stage(**{**common, **dict(stage), **last, "first": first}))
            first += given[-1].steps
        return tuple(given) or (Stage(train.steps, **common),)

    def optimizer(self, stage: Stage) -> Optimizer:
        """The optimiser of a stage."""
        t = self.config.train
        first, steps = (stage.first, stage.steps) if stage.own_schedule else (0, t.steps)
        lr = t.lr * stage.lr_factor
        return Optimizer(
            Schedule(lr, steps, t.warmup_steps, t.decay, t.decay_at, first=first),
            self.model.parts(),
            t.optimizer,
            t.clip,
            t.weight_decay,
            stage,
            tuple(t.get("unclipped", ())),
            tuple(t.get("plain", ())),
        )

    def step_function(self, stage: Stage) -> Any:
        """The mapped, compiled step of a stage."""
        step = device_step(self.model, self.optimizer(stage), MappedAxis())
        split = bool(self.model.split_slots)
        return map_step(step, self.mesh, self.config.parallel.mapper, split_memory=split)

    def first_state(self) -> State:
        """The state at step 0: random, except word vectors and parts from other runs or files."""
        runs, files = runs_and_files(self.config.init)
        optimizer = self.optimizer(self.stages()[0])

        def fresh() -> Any:
            return init_state(self.model, optimizer, self.config.seed)

        # One program: op by op it takes ten times as long.
        if self.model.split_slots:  # the memory by itself: it may be too large for one device
            places = jax.tree.map(lambda x: x.sharding, self.abstract_state().memory)
            memory = jax.jit(lambda: fresh().memory, out_shardings=places)()
            state = jax.jit(lambda: fresh().replace(memory=None))().replace(memory=memory)
        else:
            state = jax.jit(fresh)()
        params, vectors = state.params, None
        if "words" in self.model.parts():
            (path,) = self.model.parts()["words"]
            shape = leaf_at(params, path).shape
            vectors = word_vectors(self.config.data, self.data, shape[1])
            if vectors is not None:
                params = with_leaf(params, path, jnp.asarray(vectors))
        params = self._with_named_classes(params, vectors)
        start = self.model.parts(), runs, self.data.vocabulary
        params = warm_start(params, *start)
        stats = self.model.observe(state.stats, self.data.splits["train"].sources)
        stats = warm_start(stats, *start, of="stats")
        params, stats = pretrained(self.model, params, stats, files)
        return state.replace(params=params, stats=stats)

    def _with_named_classes(self, params: Any, words: np.ndarray | None) -> Any:
        """Replace random vectors of classes by word vectors of the classes' names, if given."""
        data = self.config.data
        for part, file in (("labels", data.object_names), ("attributes", data.attribute_names)):
            if not file:
                continue
            paths = self.model.parts().get(part)
            if paths is None:
                raise UserError(
                    f"data names a file of {part}, {file}, but {self.config.model.name} has no "
                    "vectors for them in this configuration: leave the name empty."
                )
            table = leaf_at(params, paths[0])  # row 0 is for no class
            names = read_class_names(file, table.shape[0] - 1)
            have, vectors = class_vectors(names, data, self.data, words)
            if vectors.shape[1] != table.shape[1]:
                raise UserError(
                    f"{data.vectors} holds vectors of {vectors.shape[1]} dimensions "
                    f"but model.word_dim is {table.shape[1]}: set it to {vectors.shape[1]}."
                )
            params = with_leaf(params, paths[0], table.at[have + 1].set(vectors))
        return params

    def goes_without(self) -> str:
        """A sentence for every optional input and weight file that is missing; empty if none is."""
        c = self.config.model
        each = []
        wanted = get_model(c.name, **{k: v for k, v in c.items() if k != "name"}).inputs()
        for m, inputs in wanted.items():
            found = self.plan.features.get(m, {})
            missing = [name for name, f in inputs.items() if f.optional and name not in found]
            if missing:
                each.append(f"no {' and no '.join(_readable_names(missing))} of {m} items")
        data = f"The data has {' and '.join(each)}: {c.name} goes without." if each else ""
        return " ".join(filter(None, [data, untrained(self.model, self.config.init)]))

    def abstract_state(self) -> State:
        """Shapes and dtypes of the state, without computing anything; where a split memory lies."""
        optimizer = self.optimizer(self.stages()[0])
        state = jax.eval_shape(lambda: init_state(self.model, optimizer, self.config.seed))
        if not self.model.split_slots:
            return state
        memory = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            state.memory,
            shardings(self.mesh, state, split_memory=True).memory,
        )
        return state.replace(memory=memory)

    def for_model(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a batch that the step uses: the model's inputs and the row.

        Labels are included only if the model needs them, states of a frozen text tower if there
        are any.
        """
        wanted = self.model.inputs()
        found = {m: select_inputs(wanted[m], batch[m], f"{m} items") for m in wanted}
        for m in found:
            found[m] |= {name: x for name, x in batch[m].items() if name == STATES}
        left_out = () if self.model.needs_labels else ("labels",)
        return {**found, "row": {k: v for k, v in batch["row"].items() if k not in left_out}}


def build(config: ConfigDict, vocabulary: Vocabulary | None = None) -> Experiment:
    """Open the data of ``config`` and fit the model to it.

    Raises `UserError` for bad data or hyper-parameters, or too few devices.
    """
    check(config)
    if config.parallel.mapper == "pmap" and jax.process_count() > 1:
        raise UserError(
            "parallel.mapper is pmap, which supports one process: use shard_map for several."
        )
    mesh = make_mesh(config.parallel.devices)
    data = open_data(config.data, vocabulary or read_tokens(config.data))
    for split in data.splits.values():  # also dev, which training would read hours later
        check_lengths(split, config.data.buckets)
    train, t = data.splits["train"], config.train
    plan = Plan(
        steps=t.steps,
        steps_per_epoch=steps_per_epoch(train, t.batch_size, config.data.batching),
        vocabulary_size=len(data.vocabulary),
        features=item_shapes(train),
        classes=classes_of(train),
        rows=len(train),
    )
    experiment = Experiment(config, data, make_model(config, plan), plan, mesh)
    _check_split(config, experiment.model, mesh)
    _check_known_classes(experiment.model, data)
    if experiment.model.needs_labels and not train.labels:
        raise UserError(
            f"{config.model.name} learns from labels, but the training data has none: give data "
            "with labels (data.features.labels), or set model.match to group."
        )
    check_parts(config, experiment.model.parts())
    check_calibration(config, experiment.model.modalities)
    return experiment


def _check_split(config: ConfigDict, model: Model, mesh: Mesh) -> None:
    """Check that the devices can split the memory of a model."""
    slots, devices = model.split_slots, mesh.devices.size
    if not slots:
        return
    if config.parallel.mapper == "pmap":
        raise UserError(
            f"parallel.mapper is pmap, which cannot split a memory of {slots:,} slots over "
            "devices: use shard_map, or lower model.slots."
        )
    if slots % devices:
        raise UserError(
            f"A memory of {slots:,} slots cannot be split evenly over {devices} devices: set "
            f"parallel.devices or model.slots so that the slots are a multiple of the devices."
        )


def make_model(config: ConfigDict, plan: Plan) -> Model:
    """The system of ``config.model``, fitted to the data; `UserError` if inputs are missing."""
    fields = {k: v for k, v in config.model.items() if k != "name"}
    model = get_model(config.model.name, **fields, dtype=config.dtype)
    if not set(model.modalities) <= plan.features.keys():
        raise UserError(
            f"{config.model.name} reads {' and '.join(model.modalities)}, but the data has "
            f"{' and '.join(plan.features)}: give other data (data.source, data.visual), or a "
            "system that reads this data (model.visual if the system has it)."
        )
    try:
        model = model.fit_to(plan)
    except KeyError as error:  # a size depends on an input that the data does not have
        has = "; ".join(f"{m}: {', '.join(of)}" for m, of in plan.features.items())
        raise UserError(
            f"{config.model.name} needs {error.args[0]} of its items, but the data has only "
            f"{has}: give other data (data.source), or a system that reads this data."
        ) from None
    _check_texts(config, model)
    words = getattr(model, "vocabulary_size", plan.vocabulary_size)
    if words < plan.vocabulary_size:
        raise UserError(
            f"model.vocabulary_size is {words}, but the vocabulary has {plan.vocabulary_size} "
            "words: leave it at 0 to use the size of the vocabulary."
        )
    for modality, wanted in model.inputs().items():
        found = plan.features.get(modality, {})
        lacking = [n for n, feature in wanted.items() if n not in found and not feature.optional]
        if lacking:
            advice = "prepare them, or switch off the options that need them."
            advice = WORD_GRAPHS if "heads" in lacking else advice
            raise UserError(
                f"{config.model.name} needs {', '.join(_readable_names(lacking))} of each "
                f"{modality}, but the data has only "
                f"{', '.join(_readable_names(found)) or 'none'}: {advice}"
            )
        _check_shapes(config.model.name, wanted, found)
    return model


def _check_texts(config: ConfigDict, model: Model) -> None:
    """Check the tokens (words or WordPieces) and the longest length of texts."""
    data = config.data
    if data.get("pieces") and not model.reads_pieces:
        raise UserError(
            "data.pieces cuts captions into pieces for BERT or CLIP, but "
            f"{config.model.name} reads words: leave data.pieces empty, or set model.text to bert "
            "or clip if the system has it."
        )
    if 0 < model.positions < max(data.buckets):
        raise UserError(
            f"data.buckets reach {max(data.buckets)}, but the text tower has {model.positions} "
            "positions: lower data.buckets and data.max_words, or give a tower with more."
        )


def _readable_names(inputs: Iterable[str]) -> list[str]:
    """Names of inputs for messages, each once."""
    return list(dict.fromkeys(INPUT_NAMES.get(name, name) for name in inputs))


def _check_known_classes(model: Model, data: DataSet) -> None:
    """Check before the first step that the model has a row for every class id in the files."""
    for role, split in data.splits.items():
        for m, wanted in model.inputs().items():
            more = getattr(split.sources[m], "more", {})
            for name, feature in wanted.items():
                if feature.num_classes is None or name not in more:
                    continue
                bad = np.flatnonzero((more[name] >= feature.num_classes).any(axis=1))
                if len(bad):
                    item, most = split.ids[m][int(bad[0])], int(more[name][bad[0]].max())
                    raise UserError(
                        f"{name} of the {role} {m} {item} reach {most}, where ids from -1 (none) "
                        f"to {feature.num_classes - 1} were expected: set "
                        f"{NUMBER_OF.get(name, 'the number of classes')} to the number of "
                        "classes, or correct the file."
                    )


def _check_shapes(
    name: str, wanted: Mapping[str, Feature], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that sizes set by the recipe are those of the data."""
    for key, feature in wanted.items():
        shape = found.get(key)
        if shape is None:
            continue
        if len(shape) != len(feature.shape) or any(
            want not in (None, has) for want, has in zip(feature.shape, shape, strict=True)
        ):
            raise UserError(
                f"{name} has sizes for {key} of {list(feature.shape)}, but the data has "
                f"{list(shape)}: leave the sizes at 0 to use those of the data."
            )


def classes_of(split: Split) -> int:
    """The number of classes; 0 without labels."""
    first = split.labels.get(next(iter(split.sources)))
    return 0 if first is None or not len(first) else int(first.shape[1])


def item_shapes(split: Split) -> dict[str, dict[str, tuple[int, ...]]]:
    """{modality: {input: shape of one item}} of a split."""
    first = {m: source.gather(np.zeros(1, np.int64)) for m, source in split.sources.items()}
    return {m: {k: v.shape[1:] for k, v in items.items()} for m, items in first.items()}
