"""What a preparation is to write, and where each row of it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from hmgr_jax.data.regions.row_arrays import COUNTS, KINDS

FEATURES = "ims"
BOXES = "boxes"
NOUNS = {"image": "images", "video": "videos"}
CHUNK_BYTES = 32 << 20
"""About so much of a source is held at a time."""


class Array(NamedTuple):
    """Shape and type of one row of a file."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def features(regions: int, size: int) -> Array:
    """What ``{split}_ims.npy`` holds of an image: float16 [regions, size]."""
    return Array((regions, size), np.dtype(np.float16))


def beside(name: str, regions: int) -> Array:
    """What ``{split}_{name}.npy`` holds of an image: a count, boxes, labels, scores, sizes."""
    if name == COUNTS:
        return Array((), np.dtype(np.int32))
    if name == BOXES:
        return Array((regions, 4), np.dtype(np.float32))
    return Array(KINDS[name].shape(regions), KINDS[name].dtype)


@dataclass(frozen=True)
class SplitPlan:
    """One split: its images in order, their captions, and the arrays that are written of them."""

    ids: Sequence[str]
    captions: Sequence[Sequence[str]]
    arrays: Mapping[str, Array]
    """{ending: array}: ``ims`` is written to ``{split}_ims.npy``; the first is the features."""
    graphs: Path | None = None
    """CoNLL-U file of the captions in this order, which is copied."""

    def __len__(self) -> int:
        return len(self.ids)


class Chunk(NamedTuple):
    """Some rows of a split, read."""

    split: str
    rows: np.ndarray
    """int [k], places in the split."""
    arrays: Mapping[str, np.ndarray]
    """{ending: [k, ...]}; features in the precision of the source."""
    where: Callable[[int], str]
    """What a person calls the source of row 0..k-1 of the chunk: a file and a row or line."""


class RowSource(Protocol):
    """Where rows come from."""

    def chunks(self, todo: Mapping[str, np.ndarray]) -> Iterator[Chunk]:
        """All rows of which ``todo`` ({split: bool [rows]}) is True, in whatever order suits.

        Raises ``UserError`` with file and row for what cannot be read.
        """
        ...

    def changed(self, since: int) -> Mapping[str, np.ndarray]:
        """{split: bool [rows]} of rows to be read again: changed after ``since`` (ns of the epoch).

        Splits may be left out.
        """
        ...


@dataclass(frozen=True)
class Plan:
    """A whole preparation."""

    splits: Mapping[str, SplitPlan]
    source: RowSource
    about: Mapping[str, Any]
    """Command, options and `identity` of the sources, for people and for `key`."""
    visual: str = "image"
    """What rows of features are, as ``data.visual`` of a configuration."""
    files: str = ""
    """`identity` of sources with a file an image: one replaced is read again, the others stay."""

    def key(self, *, whole: bool) -> str:
        """Hexadecimal name of this preparation: the same for the same sources and options.

        ``whole`` is for what is finished; one half done goes on although `files` differs, and with
        them the most regions of an image: files of another shape are begun anew.
        """
        about = json.dumps([self.about, self.files if whole else ""], sort_keys=True)
        digest = hashlib.sha256(about.encode())
        for name, split in self.splits.items():
            arrays = {end: [array.shape, str(array.dtype)] for end, array in split.arrays.items()}
            digest.update(json.dumps([name, arrays if whole else {}]).encode())
            for image, captions in zip(split.ids, split.captions, strict=True):
                digest.update(json.dumps([image, *captions]).encode())
        return digest.hexdigest()


def identity(paths: Iterable[Path]) -> str:
    """Hexadecimal digest of names, sizes and times of change: to notice another source."""
    digest = hashlib.sha256()
    for path in paths:
        found = path.stat()
        digest.update(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def blocks(rows: np.ndarray, row_bytes: int) -> Iterator[np.ndarray]:
    """``rows`` in pieces of about `CHUNK_BYTES`, at least one row each."""
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
