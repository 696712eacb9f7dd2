"""Extracted features in files: ``.npy`` and ``.npz``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.data.regions.regions import open_features
from hmgr_jax.data.regions.row_arrays import check_zero_padding, read_boxes, read_counts
from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import Stored, open_arrays
from hmgr_jax.files.npy_rows import NpyRows
from hmgr_jax.files.walk import files_below
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity
from hmgr_jax.preparation.region_arrays import find_regions, read_regions, stem
from hmgr_jax.preparation.stores import Store
from hmgr_jax.progress import Progress

ENDINGS = (".npz", ".npy")


class FileStore(Store):
    """``FOLDER/{id}.npz`` or ``.npy``, also in sub-folders; an ``.npz`` may hold boxes.

    The first file determines the size of the features and whether there are boxes.
    """

    def __init__(self, path: Path, array: str | None, *, with_boxes: bool = True) -> None:
        self.path, self.array, self.with_boxes = path, array, with_boxes
        self.files = self.ids = self._find_files()
        if not self.files:
            raise UserError(
                f"{path} holds no .npy or .npz: give a folder with one an image, named by its id."
            )
        first = self.read(next(iter(self.files)))
        self.size = first[FEATURES].shape[1]
        self.has_boxes = BOXES in first

    def _find_files(self) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for file in files_below(self.path, ENDINGS):
            name = file.relative_to(self.path).with_suffix("").as_posix()
            if files.setdefault(name, file) != file:
                raise UserError(
                    f"{file} and {files[name].name} are features of the same image: remove one."
                )
        return files

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """Read from the header of every file."""
        counts = np.zeros(len(ids), np.int64)
        with Progress(len(ids), "files", title="checking", stream=sys.stderr) as bar:
            for i, name in enumerate(ids):
                with _arrays(self.ids[name]) as arrays:
                    counts[i] = find_regions(arrays, self._key(arrays), self.where(name)).number
                bar.advance(1)
        return counts

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features, and boxes if present, of one image."""
        with _arrays(self.ids[name]) as arrays:
            key, where = self._key(arrays), self.where(name)
            return read_regions(arrays, key, where, with_boxes=self.with_boxes)

    def _key(self, arrays: Mapping[str, object]) -> str | None:
        return self.array if len(arrays) > 1 or stem(self.array) in arrays else None


@contextlib.contextmanager
def _arrays(path: Path) -> Iterator[dict[str, Stored]]:
    """The arrays of a file by name, without pickled objects, which bottom-up files also hold."""
    with open_arrays(path, "extract it again.") as arrays:
        yield {name: array for name, array in arrays.items() if not array.dtype.hasobject}


class NpyStore(Store):
    """``FILE.npy`` [rows, R, D] with ``ids``; boxes in ``FILE_boxes.npy`` [rows, R, 4] in 0..1, and
    numbers of true regions in ``FILE_counts.npy`` [rows].

    ``{name}_ims.npy`` and ``_feat.npy`` have ``{name}_boxes.npy`` and, by default, ``_ids.txt``.
    """

    def __init__(self, path: Path, ids: Path | None, *, with_boxes: bool = True) -> None:
        self.path = path
        rows = NpyRows(path)
        if len(rows.shape) == 2:  # a vector an image is one region
            rows.shape = rows.shape[0], 1, rows.shape[1]
        self.rows = open_features(rows)
        self.size = self.rows.shape[2]
        stem = path.stem.removesuffix("_ims").removesuffix("_feat")
        self.ids_file = ids or path.with_name(f"{stem}_ids.txt")
        self.boxes_file = path.with_name(f"{stem}_boxes.npy")
        self.has_boxes = with_boxes and self.boxes_file.is_file()
        self.ids = self._read_ids()
        counts, shape = path.with_name(f"{stem}_counts.npy"), self.rows.shape
        self.counts_file = counts if counts.is_file() else None
        self._counts = read_counts(self.counts_file, (shape[0], shape[1]))

    def _read_ids(self) -> dict[str, int]:
        if not self.ids_file.is_file():
            raise UserError(
                f"{self.ids_file} is missing, so the rows of {self.path} have no ids: give "
                "--ids a file with one id per row."
            )
        lines = read_lines(self.ids_file)
        if len(lines) != len(self.rows):
            raise UserError(
                f"{self.ids_file} has {len(lines)} lines but {self.path} has {len(self.rows)} "
                "rows: there must be one id per row."
            )
        row_of: dict[str, int] = {}
        for row, name in enumerate(lines):
            if row_of.setdefault(name, row) != row:
                raise UserError(
                    f"{self.ids_file}:{row + 1} repeats {name} of line {row_of[name] + 1}: every "
                    "image has one row, so drop the repeats first (hmgr_jax.prepare scan does)."
                )
        return row_of

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """The counts in the file, or all regions of the row."""
        if self._counts is None:
            return np.full(len(ids), self.rows.shape[1])
        return self._counts[[self.ids[name] for name in ids]]

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features, and boxes if present, of one image."""
        row = np.asarray([self.ids[name]])
        found = {FEATURES: self.rows.gather(row)}
        if self.has_boxes:
            shape = (len(self.rows), self.rows.shape[1])
            found[BOXES] = read_boxes([self.boxes_file], row, shape, self._counts)
        if self._counts is not None:
            where = f"{self.where(name)} holds"
            check_zero_padding(found[FEATURES], self._counts[row], lambda _: where)
        count = int(self.regions([name])[0])
        return {end: values[0, :count] for end, values in found.items()}

    def where(self, name: str) -> str:
        """File and row."""
        return f"{self.path}, row {self.ids[name]} ({name}),"

    def identity(self, ids: Sequence[str]) -> str:
        """A digest of all files of the store."""
        more = [self.boxes_file] if self.has_boxes else []
        more += [self.counts_file] if self.counts_file else []
        return identity([self.path, self.ids_file, *more])
