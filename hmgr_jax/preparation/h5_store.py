"""HDF5 files of features in common layouts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity
from hmgr_jax.preparation.region_arrays import FEATURE_NAMES, read_regions, region_shape
from hmgr_jax.progress import Progress

IDS = ("ids", "image_ids", "image_id", "img_ids")


class H5Store:
    """One of: ``features`` [n, R, D] with ``ids`` [n] (and ``boxes`` in 0..1); a dataset or a group
    an image named by its id; datasets ``{id}_features`` and ``{id}_boxes``.

    Needs h5py, the extra ``h5``.
    """

    files = None
    exact = True
    slow = False

    def __init__(self, path: Path, array: str | None, *, with_boxes: bool = True) -> None:
        self.path, self.array, self.with_boxes = path, array, with_boxes
        self._file = _open(path)
        self._columns: dict[str, Any] = {}
        self._of: dict[str, Any] = self._rows() or self._images()
        if not self._of:
            raise UserError(
                f"{path} holds neither 'features' with 'ids' nor a dataset an image: convert it."
            )
        first = self.read(next(iter(self._of)))
        self.size = first[FEATURES].shape[1]
        self.has_boxes = BOXES in first

    @property
    def ids(self) -> Mapping[str, Any]:
        """{id: where it is in the file}."""
        return self._of

    def _rows(self) -> dict[str, Any]:
        """{id: row} if one dataset holds all images, else empty."""
        names = next((name for name in IDS if name in self._file), None)
        usual = [self.array] if self.array else [*FEATURE_NAMES]
        key = next((name for name in usual if name in self._file), None)
        if names is None or key is None:
            return {}
        ids = [_text(value) for value in self._file[names][:].tolist()]
        if len(ids) != len(self._file[key]) or len(set(ids)) != len(ids):
            raise UserError(
                f"{self.path} has {len(ids)} {names}, {len(set(ids))} different, for "
                f"{len(self._file[key])} rows of {key}: there must be one id per row."
            )
        self._columns = {"features": self._file[key]}
        for box in ("boxes", "bbox"):
            if box in self._file:
                self._columns["boxes"] = self._file[box]
        return {name: row for row, name in enumerate(ids)}

    def _images(self) -> dict[str, Any]:
        """{id: name of its dataset or group} if every image has its own."""
        found = {}
        for name in self._file:
            if name.endswith(("_boxes", "_bbox", "_cls_prob")):
                continue
            found[name.removesuffix("_features")] = name
        return found

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """Read from the shapes of the datasets."""
        if self._columns:
            return np.full(len(ids), self._columns["features"].shape[1])
        counts = np.zeros(len(ids), np.int64)
        with Progress(len(ids), "datasets", title="checking", stream=sys.stderr) as bar:
            for i, name in enumerate(ids):
                arrays = self._arrays(name)
                counts[i] = region_shape(arrays, self._key(arrays), self.where(name))[0]
                bar.advance(1)
        return counts

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features, and boxes if present, of one image."""
        place, where = self._of[name], self.where(name)
        try:
            if isinstance(place, int):
                arrays = {key: column[place] for key, column in self._columns.items()}
            else:
                arrays = self._arrays(name)
            return read_regions(arrays, self._key(arrays), where, with_boxes=self.with_boxes)
        except OSError as error:
            raise UserError(f"{where} cannot be read ({error}): copy it again.") from None

    def _arrays(self, name: str) -> dict[str, Any]:
        """The datasets of an image that has its own."""
        place = self._of[name]
        if hasattr(self._file[place], "keys"):
            return dict(self._file[place].items())
        arrays = {"features": self._file[place]}
        if f"{name}_boxes" in self._file:
            arrays["boxes"] = self._file[f"{name}_boxes"]
        return arrays

    def _key(self, arrays: Mapping[str, Any]) -> str | None:
        return self.array if self.array in arrays else None

    def where(self, name: str) -> str:
        """The file and the place in it."""
        return f"{self.path}, {name},"

    def identity(self, ids: Sequence[str]) -> str:
        """A digest of the file."""
        return identity([self.path])


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{path} needs h5py to be read: install it with pip install 'hmgr-jax[h5]'."
        ) from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} is no HDF5 file that can be read ({error}): copy it again."
        ) from None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
