"""The contract of a system: `Model`, and the arrays that go in and out of it.

The loop, evaluation, checkpoints, search and the contract tests use a system only through
``Model``. A new system is one file in this folder, one line in the registry and one branch of a
recipe; it implements

    inputs()                            {modality: {name: Feature}}
    init(key, tables)                   -> Variables
    encode(variables, modality, items)  -> codes, stats           one item at a time, cacheable
    loss(variables, codes, row, axis)   -> total, terms, stats, written
    score(variables, a, b)              -> [len(a), len(b)]       default: inner product
    coarse(variables, modality, codes)  -> [n, E]                 default: the codes
    parts()                             -> {name: paths of parameters}

and ``modalities``. Everything else has a default: see `Model` and `hmgr_jax.models.hooks`.

``row`` holds the bookkeeping of a training batch; b is this device's share of its B rows.

    index   int32 [b]      position in the global batch, the key of all random numbers
    valid   bool [b]       False in padding rows, which must not contribute
    group   int32 [b]      rows of one group are positives of each other (captions of one image)
    item    int32 [b]      row of the training split
    labels  uint8 [b, K]   labels or counts of answers; only with ``Model.needs_labels``
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import struct

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.linear import einsum
from hmgr_jax.models.hooks import Attended, Banks, Explanation, Hooks
from hmgr_jax.models.options import check_options
from hmgr_jax.shapes import Array, Float, Int, Tree

__all__ = [
    "Attended",
    "Axis",
    "Banks",
    "Codes",
    "Explanation",
    "Feature",
    "Items",
    "LocalAxis",
    "Model",
    "Parts",
    "Plan",
    "Terms",
    "Variables",
    "check_ids",
    "example_item",
    "frames_and_tokens",
    "regions_and_tokens",
    "select_inputs",
]

Items = Mapping[str, Array]
Codes = Tree
Terms = dict[str, Array]
Parts = Mapping[str, tuple[str, ...]]


@struct.dataclass
class Variables:
    """All arrays that a model computes with."""

    params: Tree
    """Trained by the optimiser."""
    stats: Tree
    """Batch-norm moments, moving centres."""
    memory: Tree
    """State that training writes and inference reads; None in models without memory."""
    tables: Tree
    """Constants (word graphs, retrieved captions): never trained, saved or fingerprinted. A table
    of the same shape is swapped without recompiling."""


@dataclass(frozen=True)
class Feature:
    """One input array of an item, without the leading item axis."""

    shape: tuple[int | None, ...]
    """None marks an axis whose length varies from batch to batch (words)."""
    dtype: str
    optional: bool = False
    """Whether the model also works without this input."""
    num_classes: int | None = None
    """For integer ids: the number of classes; ids are in [-1 (none), num_classes - 1]."""


@dataclass(frozen=True)
class Plan:
    """Sizes of the data and the schedule, for ``Model.fit_to``."""

    steps: int
    steps_per_epoch: int
    vocabulary_size: int
    features: Mapping[str, Mapping[str, tuple[int, ...]]]
    """{modality: {input name: shape of one item}} of the data set."""
    classes: int = 0
    """Number of the data set's labels; 0 without labels."""
    rows: int = 2**31 - 1
    """Number of training rows; the default stands for many."""


@runtime_checkable
class Axis(Protocol):
    """The device axis of a model: `LocalAxis`, or the classes of distributed/parallel.py."""

    @property
    def size(self) -> int:
        """Number of devices."""
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

    def exchange(self, tree: Tree) -> Tree:
        """Send x[d] of every leaf [devices, ...] to device d, and receive as much of each."""
        ...

    def sum_of_rows(self, x: Array) -> Array:
        """Sum of x[d] [devices, ...] over devices, on device d."""
        ...

    def pair_rows(self, score: Callable[[Tree, Tree], Array], a: Tree, b: Tree) -> Array:
        """Score matrix [B, B]; each device computes the rows of its own ``a``."""
        ...


@dataclass(frozen=True)
class Model(Hooks):
    """A system: frozen hyper-parameters and pure functions of them."""

    # --- the contract -------------------------------------------------------------------------

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the score matrix; may be a class attribute."""
        raise NotImplementedError

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """{modality: {name: Feature}}, the arrays of an item."""
        raise NotImplementedError

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh variables with ``tables``; if None, a model that needs tables makes its own."""
        raise NotImplementedError

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """Compute everything that depends on only one item.

        Returns:
            (codes with a leading item axis, statistics after this batch).
        """
        raise NotImplementedError

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
        """(total, terms, stats, written) from the LOCAL codes of a training batch.

        ``total`` must be the same number on every device: compute it from gathered values, and
        pass a term of local rows through ``axis.mean`` or ``axis.sum`` first. ``written`` is what
        ``write_memory`` stores, also equal on every device; None without a memory.
        """
        raise NotImplementedError

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """Scores of all pairs of inference codes (modality, codes), higher is better.

        Default: inner products.
        """
        return einsum("ad,bd->ab", a[1], b[1])

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n E"]:
        """Vectors for inner-product search; default: the codes."""
        return jnp.asarray(codes)

    def parts(self) -> Parts:
        """{part name: paths of parameters}, to freeze, to train separately or to load from a file.

        Together the parts cover every parameter.
        """
        raise NotImplementedError

    # --- defaults that some systems replace ---------------------------------------------------

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def coarse_exact(self) -> bool:
        """Whether inner products of ``coarse`` are the scores; may be a class attribute."""
        return False

    def fit_to(self, plan: Plan) -> Model:
        """This model with sizes and lengths of warm-ups filled in from ``plan``."""
        return self

    def encode_batch(
        self,
        variables: Variables,
        items: Mapping[str, Items],
        row: Items,
        *,
        keys: Keys,
        axis: Axis,
    ) -> tuple[dict[str, Codes], Tree]:
        """Training codes {modality: codes} of this device's items, and the statistics after them.

        Default: ``encode`` for one modality after the other. Only systems with batch norm, whose
        items interact in training, need ``row`` and ``axis``.
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

    def hyperparameters(self) -> dict[str, Any]:
        """{field: value}, for configs and checkpoints."""
        return dataclasses.asdict(self)


class LocalAxis:
    """A single device: every operation is the identity."""

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

    def exchange(self, tree: Tree) -> Tree:
        """The tree itself."""
        return tree

    def sum_of_rows(self, x: Array) -> Array:
        """``x[0]``."""
        return x[0]

    def pair_rows(
        self, score: Callable[[Tree, Tree], Array], a: Tree, b: Tree
    ) -> Float[Array, "B B"]:
        """The score matrix."""
        return score(a, b)


# --- inputs -------------------------------------------------------------------------------------

NUMBER_OF = {
    "labels": "model.object_classes",
    "attributes": "model.attribute_classes",
    "neighbours": "data.faces",
}
"""{input: option that sets its number of classes}."""


def check_ids(features: Mapping[str, Feature], items: Mapping[str, Any], of: str = "items") -> None:
    """Check that ids are in range.

    Raises:
        UserError: names the input, its owner ``of``, and the range found.
    """
    for name, feature in features.items():
        if feature.num_classes is None or name not in items:
            continue
        least, most = int(items[name].min(initial=-1)), int(items[name].max(initial=-1))
        if least < -1 or most >= feature.num_classes:
            raise UserError(
                f"{name} of {of} must be ids from -1 (none) to {feature.num_classes - 1}, found "
                f"{least} to {most}: correct them, or raise "
                f"{NUMBER_OF.get(name, 'the number of classes')}."
            )


def select_inputs(
    features: Mapping[str, Feature], items: Mapping[str, Any], of: str = "items"
) -> dict[str, Any]:
    """Select the inputs of a model from a batch of items; optional ones may be missing.

    Raises:
        UserError: a required input is missing, or an id is out of range.
    """
    lacking = [name for name, f in features.items() if name not in items and not f.optional]
    if lacking:
        raise UserError(
            f"The model needs {', '.join(lacking)} of {of}, found {', '.join(items) or 'none'}: "
            "prepare them, or choose a model that does not read them."
        )
    check_ids(features, items, of)
    return {name: items[name] for name in features if name in items}


def example_item(features: Mapping[str, Feature]) -> dict[str, Array]:
    """One all-ones item, for initialisation."""
    shape = {name: tuple(4 if n is None else n for n in f.shape) for name, f in features.items()}
    return {name: jnp.ones((1, *shape[name]), f.dtype) for name, f in features.items()}


def regions_and_tokens(regions: int, region_dim: int) -> dict[str, dict[str, Feature]]:
    """Inputs of a system that reads regions and words."""
    image = {
        "regions": Feature((regions, region_dim), "float16"),
        "n_regions": Feature((), "int32"),
    }
    text = {"tokens": Feature((None,), "int32"), "lengths": Feature((), "int32")}
    return {"image": image, "text": text}


def frames_and_tokens(frames: int, frame_dim: int) -> dict[str, dict[str, Feature]]:
    """Inputs of a system that reads frames and words."""
    video = {"frames": Feature((frames, frame_dim), "float16"), "n_frames": Feature((), "int32")}
    text = {"tokens": Feature((None,), "int32"), "lengths": Feature((), "int32")}
    return {"video": video, "text": text}
