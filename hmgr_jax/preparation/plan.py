"""The plan of a preparation: which arrays it writes, and the source of each row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.data.regions.row_arrays import COUNTS, KINDS

FEATURES = "ims"
BOXES = "boxes"
NOUNS = {"image": "images", "video": "videos"}
CHUNK_BYTES = 32 << 20
"""Approximate bytes of a source held in memory at a time."""


class Array(NamedTuple):
    """Shape and type of one row of a file."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def features(regions: int, size: int) -> Array:
    """A row of ``{split}_ims.npy``: float16 [regions, size]."""
    return Array((regions, size), np.dtype(np.float16))


def beside(name: str, regions: int) -> Array:
    """A row of ``{split}_{name}.npy``: a count, boxes, labels, scores or sizes."""
    if name == COUNTS:
        return Array((), np.dtype(np.int32))
    if name == BOXES:
        return Array((regions, 4), np.dtype(np.float32))
    return Array(KINDS[name].shape(regions), KINDS[name].dtype)


@dataclass(frozen=True)
class SplitPlan:
    """One split: its images in order, their captions, and the arrays to write."""

    ids: Sequence[str]
    captions: Sequence[Sequence[str]]
    arrays: Mapping[str, Array]
    """{ending: array}: ``ims``, the features, is written to ``{split}_ims.npy``; it comes first."""
    graphs: Path | None = None
    """CoNLL-U file of the captions in this order, to copy."""

    def __len__(self) -> int:
        return len(self.ids)


class Chunk(NamedTuple):
    """Rows of a split in memory."""

    split: str
    rows: np.ndarray
    """int [k], row numbers in the split."""
    arrays: Mapping[str, np.ndarray]
    """{ending: [k, ...]}; features in the precision of the source."""
    where: Callable[[int], str]
    """Name of the source of row 0..k-1 of the chunk: a file and a row or line."""


class RowSource:
    """The source of rows."""

    def chunks(self, todo: Mapping[str, np.ndarray]) -> Iterator[Chunk]:
        """Yield all rows with ``todo`` ({split: bool [rows]}) True, in any order.

        Raises ``UserError`` with file and row for what cannot be read.
        """
        raise NotImplementedError

    def changed(self, since: int) -> Mapping[str, np.ndarray]:
        """{split: bool [rows]} of rows to read again: changed after ``since`` (ns of the epoch).

        Splits may be left out. By default there are none: a changed file changes the plan's key.
        """
        return {}

    def begin(self, folder: Path) -> list[str]:
        """Write what rows depend on into the ``folder`` in the making; names of its files."""
        return []

    def end(self, folder: Path) -> None:
        """Warn of what the written rows in the ``folder`` in the making show."""

    def described(self) -> dict[str, Any]:
        """Further values of the manifest."""
        return {}


@dataclass(frozen=True)
class Plan:
    """A complete preparation."""

    splits: Mapping[str, SplitPlan]
    source: RowSource
    about: Mapping[str, Any]
    """Command, options and `identity` of the sources, for `key` and for the record."""
    visual: str = "image"
    """The kind of rows, as ``data.visual`` of a configuration."""
    files: str = ""
    """`identity` of sources with one file per image; only replaced files are read again."""

    def key(self, *, whole: bool) -> str:
        """Hexadecimal key of this preparation: equal for equal sources and options.

        ``whole`` is the key of a finished preparation. A partial one resumes although `files`, and
        thus the maximum of regions, differ; files of another shape are started again.
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
    """Hexadecimal digest of names, sizes and modification times, to detect a changed source."""
    digest = hashlib.sha256()
    for path in paths:
        found = path.stat()
        digest.update(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def blocks(rows: np.ndarray, row_bytes: int) -> Iterator[np.ndarray]:
    """Split ``rows`` into pieces of about `CHUNK_BYTES`, at least one row each."""
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
