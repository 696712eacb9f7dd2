"""Interface of a data set: items of each modality, and rows that pair them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from hmgr_jax.data.draws import Draws

if TYPE_CHECKING:
    from hmgr_jax.data.text.vocabulary import Vocabulary

Items = dict[str, np.ndarray]


class Source(Protocol):
    """Random access to the items of one modality."""

    lengths: np.ndarray | None
    """int32 [n], length of each item if items are padded to a bucket, else None."""

    def __len__(self) -> int: ...

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Read ``items`` (int [k], any order, repeats allowed) as arrays with leading axis k.

        ``length`` is the padded length of the second axis; sources without ``lengths`` ignore it.
        """
        ...


class ArraySource:
    """Items in memory: {name: array with a leading axis n}."""

    lengths: np.ndarray | None = None

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = dict(arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Select ``items`` of every array."""
        return {name: array[items] for name, array in self.arrays.items()}


class SomeItems:
    """Some items of a source, in a given order."""

    def __init__(self, source: Source, items: np.ndarray) -> None:
        self._source, self._items = source, items
        self.lengths = None if source.lengths is None else source.lengths[items]

    def __len__(self) -> int:
        return len(self._items)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Read the ``items``-th of these items."""
        return self._source.gather(self._items[items], length)


@runtime_checkable
class Varied(Protocol):
    """A `Source` with random augmentation in training."""

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Like `Source.gather`, augmented by the streams of ``draws``, one per item."""
        ...


@dataclass(frozen=True)
class Split:
    """One split (train, dev or test) of a data set.

    A *row* is a training example: one item of each modality. With five captions per image there
    are five rows per image.
    """

    name: str
    sources: Mapping[str, Source]
    groups: Mapping[str, np.ndarray]
    """{modality: int32 [n]}: items of different modalities in the same group are positives."""
    rows: Mapping[str, np.ndarray]
    """{modality: int32 [N]}: the item of each modality in every row."""
    ids: Mapping[str, Sequence[str]]
    """{modality: n names}, as in the files on disk."""
    families: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: int32 [n]}: family of scenes that share their objects (generated worlds)."""
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: uint8 [n, K]}: which of K classes an item has; a row of zeros is unlabelled. Of
    questions: how many annotators gave each of K answers (`hmgr_jax.data.vqa.questions.Counts`)."""
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: int64 [n]}: COCO's ids of images and captions."""
    kinds: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: str [n]}: kind of each question."""

    @property
    def visual(self) -> str:
        """What captions describe, ``"image"`` or ``"video"``: the first modality but text."""
        return next((name for name in self.sources if name != "text"), "text")

    @property
    def about(self) -> dict[str, Mapping[str, np.ndarray]]:
        """Item annotations for evaluation protocols, besides groups."""
        names = ("families", "labels", "numbers", "kinds")
        return {name: getattr(self, name) for name in names}

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))


@dataclass(frozen=True)
class DataSet:
    """The splits of a data set, its vocabulary, and the fingerprint stored beside checkpoints."""

    name: str
    splits: Mapping[str, Split]
    vocabulary: Vocabulary
    fingerprint: str
