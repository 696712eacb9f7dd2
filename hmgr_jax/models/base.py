"""The contract that every system keeps.

The loop, evaluation, checkpoints, search and the contract tests know a system only through
``Model``. A new system is one file here, one line in the registry and one branch of a recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax import struct

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.linear import einsum
from hmgr_jax.models.corpus import Corpus
from hmgr_jax.models.options import check_options
from hmgr_jax.shapes import Array, Float, Int, Tree

Items = Mapping[str, Array]
Codes = Tree
Terms = dict[str, Array]
Parts = Mapping[str, tuple[str, ...]]


@struct.dataclass
class Variables:
    """Everything a model computes with."""

    params: Tree
    """Trained by the optimiser."""
    stats: Tree
    """Batch-norm moments, moving centres."""
    memory: Tree
    """State that training writes and inference only reads; None where a model has none."""
    tables: Tree
    """Constants: word graphs, standardisation. Never trained, saved or fingerprinted; swapping one
    for another of the same shape does not recompile."""


@dataclass(frozen=True)
class Feature:
    """One input array of an item, without the leading item axis."""

    shape: tuple[int | None, ...]
    """None is an axis whose length the batch decides (words)."""
    dtype: str
    optional: bool = False
    """Data may lack it, and the model goes without."""
    below: int | None = None
    """Integers are ids from -1 (none) up to this, exclusive."""


NUMBER_OF = {
    "labels": "model.object_classes",
    "attributes": "model.attribute_classes",
    "neighbours": "data.faces",
}
"""{input: hyper-parameter that says how many there are}."""


def demand_ids(
    features: Mapping[str, Feature], items: Mapping[str, Any], of: str = "items"
) -> None:
    """Refuse ids out of range, which no table has a row for.

    Raises:
        UserError: names the input, whose it is (``of``), and what was found.
    """
    for name, feature in features.items():
        if feature.below is None or name not in items:
            continue
        least, most = int(items[name].min(initial=-1)), int(items[name].max(initial=-1))
        if least < -1 or most >= feature.below:
            raise UserError(
                f"{name} of {of} are ids from -1 (none) to {feature.below - 1}, found {least} to "
                f"{most}: raise {NUMBER_OF.get(name, 'the number of classes')}, or correct them."
            )


def taken(
    features: Mapping[str, Feature], items: Mapping[str, Any], of: str = "items"
) -> dict[str, Any]:
    """What a model takes of a batch of items: its inputs, of which optional ones may be missing.

    Raises:
        UserError: another one is missing, or an id is out of range.
    """
    lacking = [name for name, f in features.items() if name not in items and not f.optional]
    if lacking:
        raise UserError(
            f"The model needs {', '.join(lacking)} of {of}, found {', '.join(items) or 'none'}: "
            "prepare them, or take a model that does without."
        )
    demand_ids(features, items, of)
    return {name: items[name] for name in features if name in items}


def example(features: Mapping[str, Feature]) -> dict[str, Array]:
    """One all-ones item, for initialisation."""
    shape = {name: tuple(4 if n is None else n for n in f.shape) for name, f in features.items()}
    return {name: jnp.ones((1, *shape[name]), f.dtype) for name, f in features.items()}


@dataclass(frozen=True)
class Plan:
    """What the data and the schedule decide about a model, for ``Model.fit_to``."""

    steps: int
    steps_per_epoch: int
    vocabulary_size: int
    features: Mapping[str, Mapping[str, tuple[int, ...]]]
    """{modality: {input name: shape of one item}} of the data set at hand."""
    classes: int = 0
    """Of the data set's labels; 0: it has none."""


def regions_and_tokens(regions: int, region_dim: int) -> dict[str, dict[str, Feature]]:
    """The inputs of a system that reads regions and words."""
    image = {
        "regions": Feature((regions, region_dim), "float16"),
        "n_regions": Feature((), "int32"),
    }
    text = {"tokens": Feature((None,), "int32"), "lengths": Feature((), "int32")}
    return {"image": image, "text": text}


def frames_and_tokens(frames: int, frame_dim: int) -> dict[str, dict[str, Feature]]:
    """The inputs of a system that reads frames and words."""
    video = {"frames": Feature((frames, frame_dim), "float16"), "n_frames": Feature((), "int32")}
    text = {"tokens": Feature((None,), "int32"), "lengths": Feature((), "int32")}
    return {"video": video, "text": text}


class Banks(NamedTuple):
    """What a system wants to have retrieved from banks of captions before it is trained."""

    train: str
    """Name of the bank in training."""
    test: str
    """Name of the bank at evaluation."""
    most: int
    """So many for each query, best first."""
    query: str
    """``image``: with the picture of a question; ``question``: with its words."""
    what: str
    """``captions``, ``images`` (vectors of their pictures) or ``both``."""
    words: int
    """Words of a caption that are read."""
    exclude_owner: bool
    """Whether captions of the very picture that is asked about are left out."""


class Attended(NamedTuple):
    """How the fragments of one item (queries) attended to those of another (contexts)."""

    weights: Float[Array, "K Q Y"]
    """At every step, query by context; 0 at contexts that are padding."""
    cosines: Float[Array, "K Q"]
    """Of every query with what it attended to."""


class Explanation(NamedTuple):
    """What a pair of an image and a caption was scored by, step by step."""

    scores: Float[Array, " K"]
    attention: Mapping[str, Attended]
    """{direction: Attended}, queries first: ``t2i`` are words that attend to regions."""


@runtime_checkable
class Axis(Protocol):
    """The devices as a model sees them: `LocalAxis`, or those of distributed/parallel.py."""

    @property
    def size(self) -> int:
        """How many devices."""
        ...

    def index(self) -> Int[Array, ""]:
        """This device's number."""
        ...

    def gather(self, tree: Tree) -> Tree:
        """Every leaf [b, ...] to [B, ...], in global row order."""
        ...

    def mean(self, x: Array) -> Array:
        """Mean over devices."""
        ...

    def sum(self, x: Array) -> Array:
        """Sum over devices."""
        ...

    def pair_rows(self, score: Callable[[Tree, Tree], Array], a: Tree, b: Tree) -> Array:
        """Score matrix [B, B], each device computing the rows of its own ``a``."""
        ...


class LocalAxis:
    """One device without any mapping: everything is the identity."""

    size = 1

    def index(self) -> Int[Array, ""]:
        """Device 0."""
        return jnp.zeros((), jnp.int32)

    def gather(self, tree: Tree) -> Tree:
        """The tree itself."""
        return tree

    def mean(self, x: Array) -> Array:
        """``x`` itself."""
        return x

    def sum(self, x: Array) -> Array:
        """``x`` itself."""
        return x

    def pair_rows(
        self, score: Callable[[Tree, Tree], Array], a: Tree, b: Tree
    ) -> Float[Array, "B B"]:
        """The score matrix."""
        return score(a, b)


@dataclass(frozen=True)
class Model:
    """A system: frozen hyper-parameters and the functions below, all pure."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def coarse_exact(self) -> bool:
        """True where the inner product of ``coarse`` codes is the score itself; often constant."""
        return False

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it reads, in the order of a score matrix's sides; often a constant of the class."""
        raise NotImplementedError

    def fit_to(self, plan: Plan) -> Model:
        """This model with what ``plan`` decides (sizes, lengths of warm-ups) filled in."""
        return self

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """{modality: {name: Feature}}; rows have ``index``, ``valid``, ``group`` and ``item``."""
        raise NotImplementedError

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh variables with ``tables``, or with tables made for itself where none are given."""
        raise NotImplementedError

    def observe(self, stats: Tree, train: Mapping[str, Any]) -> Tree:
        """Statistics at step 0 from ``train``, {modality: source of the training items}.

        By default those of `init`; a system that standardises its features measures them here, and
        like the moments of batch norm they are saved with its parameters.
        """
        return stats

    @property
    def needs_tables(self) -> bool:
        """Whether ``tables_of`` makes something of the training texts."""
        return type(self).tables_of is not Model.tables_of

    @property
    def reads_pieces(self) -> bool:
        """Whether texts may be pieces of words (`hmgr_jax.data.text.pieces`)."""
        return False

    @property
    def positions(self) -> int:
        """How many places of a text it tells apart; 0: any number."""
        return 0

    @property
    def needs_labels(self) -> bool:
        """Whether ``row`` in ``loss`` must have ``labels`` (`Split.labels`), uint8 [B, K]."""
        return False

    @property
    def banks(self) -> Banks | None:
        """What is to be retrieved for every question, as ``tables``; None: nothing."""
        return None

    def tables_of(self, words: Corpus) -> Tree:
        """Constants made of the training texts, for ``init``; by default none."""
        return None

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """Everything that depends on one item alone: (codes with a leading item axis, stats)."""
        raise NotImplementedError

    def encode_batch(
        self,
        variables: Variables,
        items: Mapping[str, Items],
        row: Items,
        *,
        keys: Keys,
        axis: Axis,
    ) -> tuple[dict[str, Codes], Tree]:
        """Training codes of this device's items of every modality, and the statistics after them.

        By default each modality by ``encode``, statistics handed on. Only a system whose items see
        each other in training (batch norm) needs ``row`` and ``axis``.
        """
        codes, stats = {}, variables.stats
        for modality in self.modalities:
            codes[modality], stats = self.encode(
                dataclasses.replace(variables, stats=stats),
                modality,
                items[modality],
                train=True,
                keys=keys,
            )
        return codes, stats

    def loss(
        self,
        variables: Variables,
        codes: Mapping[str, Codes],
        row: Items,
        *,
        step: Int[Array, ""],
        keys: Keys,
        axis: Axis,
    ) -> tuple[Float[Array, ""], Terms, Tree, Tree]:
        """(total, terms, stats, memory) from the LOCAL codes of a training batch.

        ``total`` is the same number on every device, computed from gathered values: a term of
        local rows goes through ``axis.mean`` or ``axis.sum`` first.
        """
        raise NotImplementedError

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """Scores of all pairs of inference codes, higher is better: only what needs the pair.

        By default their inner products.
        """
        return einsum("ad,bd->ab", a[1], b[1])

    def uncertainty(self, codes: Codes) -> Float[Array, " n"] | None:
        """How uncertain each of the items with these inference codes is, larger is less certain.

        None where the system, or this side of it, is a point.
        """
        return None

    def explain(self, variables: Variables, image: Codes, text: Codes) -> Explanation:
        """What the score of one image and one caption (codes of one item each) is made of.

        Only systems that look at regions and words in pairs have it; `explainable` tells which.
        """
        raise NotImplementedError

    def relations(
        self, variables: Variables, modality: str, items: Items
    ) -> Float[Array, "B K N N"] | None:
        """Weights of the edges within each item, from the second node to the first, in K layers.

        None where the system has no such edges.
        """
        return None

    @classmethod
    def explainable(cls) -> bool:
        """Whether this system has ``explain``."""
        return cls.explain is not Model.explain

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n E"]:
        """Vectors for inner-product search; by default the codes themselves."""
        return jnp.asarray(codes)

    @property
    def needs_train(self) -> bool:
        """Whether ``finalize`` makes something of the training items, which then are encoded."""
        return type(self).finalize is not Model.finalize

    def before_finalize(self, variables: Variables) -> Variables:
        """Variables with which the training items are encoded for ``finalize``."""
        return variables

    def finalize(
        self,
        variables: Variables,
        train_codes: Mapping[str, Codes],
        rows: Mapping[str, np.ndarray],
    ) -> Variables:
        """Variables for evaluation; by default unchanged.

        Args:
            variables: as they were trained.
            train_codes: {modality: codes of the training items, in order}.
            rows: {modality: int [N]}, which item each of the N training rows holds.
        """
        return variables

    def remark(self, report: Mapping[str, float]) -> str | None:
        """What there is to say about the terms of the last step of the first epoch."""
        return None

    def parts(self) -> Parts:
        """{part name: paths of parameters}, to freeze, to train apart or to start from a file."""
        raise NotImplementedError

    def hyperparameters(self) -> dict[str, Any]:
        """The fields, for configs and checkpoints."""
        return dataclasses.asdict(self)
