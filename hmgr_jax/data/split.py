"""What a data set looks like to everything else: items of modalities, and rows that pair them."""

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
    """int32 [n], true length of each item where items are padded to a bucket, else None."""

    def __len__(self) -> int: ...

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Read ``items`` (int [k], any order, repeats allowed) as arrays with leading axis k.

        ``length`` is the padded length of the second axis for sources that have ``lengths``.
        """
        ...


@runtime_checkable
class Varied(Protocol):
    """A `Source` whose items look different every time they are trained on."""

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Like `Source.gather`, for training: ``draws`` has a stream for every item."""
        ...


@dataclass(frozen=True)
class Split:
    """One split (train, dev or test) of a data set.

    A *row* is a training example: one item of each modality. For five captions an image there are
    five times as many rows as images.
    """

    name: str
    sources: Mapping[str, Source]
    groups: Mapping[str, np.ndarray]
    """{modality: int32 [n]}: items of different modalities with the same group are positives."""
    rows: Mapping[str, np.ndarray]
    """{modality: int32 [N]}: which item of each modality every row holds."""
    ids: Mapping[str, Sequence[str]]
    """{modality: n names for people}, as in the files on disk."""
    families: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: int32 [n]}: scenes that share their objects (generated worlds); else empty."""
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: uint8 [n, K]}: which of K kinds of objects an item shows or describes; else
    empty. All zero: nobody has looked. Of questions: how many annotators gave each of K answers,
    where rows may be made when they are asked for (`hmgr_jax.data.vqa.questions.Counts`)."""
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: int64 [n]}: the numbers by which COCO knows its images and captions; else empty.
    """
    kinds: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: str [n]}: what sort of question each is; else empty."""

    @property
    def visual(self) -> str:
        """The modality that captions describe, ``"image"`` or ``"video"``: the first but text."""
        return next((name for name in self.sources if name != "text"), "text")

    @property
    def about(self) -> dict[str, Mapping[str, np.ndarray]]:
        """What protocols may ask of the items, besides groups."""
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
