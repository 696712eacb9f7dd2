"""Extracted features in HDF5, in common layouts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.errors import UserError
from hmgr_jax.files.hdf5 import Dataset, Group, open_hdf5
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity
from hmgr_jax.preparation.region_arrays import (
    BOX_NAMES,
    COUNT_NAMES,
    FEATURE_NAMES,
    find_regions,
    read_regions,
    stem,
)
from hmgr_jax.preparation.stores import Store
from hmgr_jax.progress import Progress

IDS = ("ids", "image_ids", "image_id", "img_ids")
SPATIAL = "spatial_features"
"""BAN's dataset of x1, y1, x2, y2 in 0..1, width and height."""
BEGINNINGS = "pos_boxes"
"""BAN's dataset of the first row and one past the last row of every image."""


class H5Store(Store):
    """An HDF5 file in one of four layouts. Needs h5py, the extra ``h5``.

    - ``features`` [n, R, D] or [n, D] with ``ids`` [n], and perhaps ``boxes`` in 0..1 and
      ``num_boxes`` [n];
    - BAN's ``image_features`` [rows, D] with ``pos_boxes`` [n, 2], the first row and one past the
      last row of every image (``spatial_features`` begin with boxes in 0..1);
    - a dataset or group per image, named by its id;
    - datasets ``{id}_features`` and ``{id}_boxes``.

    In the first two ``ids``, a file with one id per image, replaces ids that the HDF5 file lacks.
    """

    def __init__(
        self, path: Path, array: str | None, ids: Path | None = None, *, with_boxes: bool = True
    ) -> None:
        self.path, self.array, self.with_boxes = path, array, with_boxes
        self.ids_file = ids
        self._file = open_hdf5(path)
        self._columns: dict[str, Dataset] = {}
        self._ends: np.ndarray | None = None
        self.ids = self._rows() or self._images()
        if not self.ids:
            raise UserError(
                f"{path} holds neither 'features' with 'ids' nor a dataset an image: convert it."
            )
        first = self.read(next(iter(self.ids)))
        self.size = first[FEATURES].shape[1]
        self.has_boxes = BOXES in first

    def _rows(self) -> dict[str, Any]:
        """{id: row} if one dataset holds all images, else empty."""
        usual = [self.array] if self.array else [*FEATURE_NAMES]
        key = next((name for name in usual if isinstance(self._file.get(name), Dataset)), None)
        whole = BEGINNINGS in self._file or any(name in self._file for name in IDS)
        if key is None or not (whole or self.ids_file or self._dataset(key).ndim == 3):
            return {}
        count = len(self._dataset(key))
        if BEGINNINGS in self._file:
            self._ends = self._read_ends(count)
            count = len(self._ends)
        ids = self._read_ids()
        if len(ids) != count or len(set(ids)) != len(ids):
            raise UserError(
                f"{self.path} has {len(ids)} ids, {len(set(ids))} different, for the {count} "
                f"images of {key}: there must be one id per image."
            )
        self._columns = {"features": self._dataset(key)}
        several = [(SPATIAL, *BOX_NAMES)] + [COUNT_NAMES] * (self._ends is None)
        for names in several:
            given = next((name for name in names if name in self._file), None)
            if given is not None:
                self._columns[names[-1]] = self._dataset(given)
        for name, column in self._columns.items():
            if name != "features" and self._ends is None and len(column) != count:
                raise UserError(
                    f"{self.path} holds {len(column)} {name} for {count} images: copy it again."
                )
        return {name: row for row, name in enumerate(ids)}

    def _read_ids(self) -> list[str]:
        names = next((name for name in IDS if name in self._file), None)
        if self.ids_file is not None:
            return read_lines(self.ids_file)
        if names is None:
            raise UserError(
                f"{self.path} holds the rows of all images but no ids: give --ids a file with one "
                "id per image, in their order."
            )
        return [_text(value) for value in np.asarray(self._dataset(names)).reshape(-1).tolist()]

    def _read_ends(self, rows: int) -> np.ndarray:
        """BAN's first row and one past the last row of every image, int64 [n, 2]."""
        ends = np.asarray(self._dataset(BEGINNINGS))
        if ends.ndim != 2 or ends.shape[1] != 2 or ends.dtype.kind not in "iu":
            raise UserError(
                f"{self.path} holds {BEGINNINGS} {ends.dtype} {ends.shape} where the first row and "
                "one past the last row of every image were expected: copy the file again."
            )
        ends = ends.astype(np.int64)
        bad = np.flatnonzero((ends[:, 0] < 0) | (ends[:, 1] <= ends[:, 0]) | (ends[:, 1] > rows))
        if len(bad):
            raise UserError(
                f"{self.path} holds {BEGINNINGS} {ends[bad[0]].tolist()} of image {bad[0]} "
                f"(counted from 0) where rows of {rows} were expected: copy the file again."
            )
        return ends

    def _images(self) -> dict[str, Any]:
        """{id: name of its dataset or group} if every image has its own."""
        found = {}
        for name in self._file:
            if name.endswith(("_boxes", "_bbox", "_bb", "_cls_prob")):
                continue
            found[name.removesuffix("_features")] = name
        return found

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """Read from the shapes of the datasets."""
        if self._columns:
            rows = [self.ids[name] for name in ids]
            if self._ends is not None:
                return np.diff(self._ends[rows])[:, 0]
            if COUNT_NAMES[-1] in self._columns:
                return np.asarray(self._columns[COUNT_NAMES[-1]]).reshape(-1)[rows]
            shape = self._columns["features"].shape
            return np.full(len(ids), shape[1] if len(shape) == 3 else 1)
        counts = np.zeros(len(ids), np.int64)
        with Progress(len(ids), "datasets", title="checking", stream=sys.stderr) as bar:
            for i, name in enumerate(ids):
                arrays = self._arrays(name)
                counts[i] = find_regions(arrays, self._key(arrays), self.where(name)).number
                bar.advance(1)
        return counts

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features, and boxes if present, of one image."""
        place = self.ids[name]
        arrays = self._row(place) if isinstance(place, int) else self._arrays(name)
        where, key = self.where(name), self._key(arrays)
        return read_regions(arrays, key, where, with_boxes=self.with_boxes)

    def _row(self, row: int) -> dict[str, Any]:
        """The arrays of an image that has a row, or several rows, of all datasets."""
        at = slice(*self._ends[row].tolist()) if self._ends is not None else row
        found = {key: column[at] for key, column in self._columns.items()}
        if SPATIAL in self._file:
            found[BOX_NAMES[-1]] = found[BOX_NAMES[-1]][:, :4]
        return found

    def _arrays(self, name: str) -> dict[str, Any]:
        """The datasets of an image that has its own."""
        place = self.ids[name]
        found = self._file[place]
        if isinstance(found, Group):
            return {key: item for key, item in found.items() if isinstance(item, Dataset)}
        arrays = {"features": found}
        if f"{name}_boxes" in self._file:
            arrays["boxes"] = self._dataset(f"{name}_boxes")
        return arrays

    def _dataset(self, name: str) -> Dataset:
        found = self._file[name]
        if not isinstance(found, Dataset):
            raise UserError(f"{self.path} holds a group {name} where numbers were expected.")
        return found

    def _key(self, arrays: Mapping[str, Any]) -> str | None:
        return self.array if stem(self.array) in arrays else None

    def where(self, name: str) -> str:
        """The file and the place in it."""
        return f"{self.path}, {name},"

    def identity(self, ids: Sequence[str]) -> str:
        """A digest of the files."""
        return identity([self.path, *([self.ids_file] if self.ids_file else [])])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
