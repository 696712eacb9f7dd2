"""HDF5 files of features in the layouts that are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity
from hmgr_jax.preparation.region_arrays import FEATURE_NAMES, read_regions

IDS = ("ids", "image_ids", "image_id", "img_ids")


class H5Store:
    """One of: ``features`` [n, R, D] with ``ids`` [n] (and ``boxes`` in 0..1); a dataset or a group
    an image named by its id; datasets ``{id}_features`` and ``{id}_boxes``.

    Needs h5py, the extra ``h5``.
    """

    files = None

    def __init__(self, path: Path, array: str | None, *, with_boxes: bool = True) -> None:
        self.path, self.array, self.with_boxes = path, array, with_boxes
        self._file = _open(path)
        self._of: dict[str, Any] = self._rows() or self._images()
        if not self._of:
            raise UserError(
                f"{path} holds neither 'features' with 'ids' nor a dataset an image: convert it."
            )
        first = self._one(next(iter(self._of)))
        self.shape = (first[FEATURES].shape[0], first[FEATURES].shape[1])
        self.has_boxes = BOXES in first
        self.bytes_an_image = 3 * first[FEATURES].nbytes

    @property
    def ids(self) -> Mapping[str, Any]:
        """{id: where it is in the file}."""
        return self._of

    def _rows(self) -> dict[str, Any]:
        """{id: row} of the layout with one dataset for all, empty for another layout."""
        names = next((name for name in IDS if name in self._file), None)
        usual = [self.array] if self.array else [*FEATURE_NAMES]
        key = next((name for name in usual if name in self._file), None)
        if names is None or key is None:
            return {}
        ids = [_text(value) for value in self._file[names][:].tolist()]
        if len(ids) != len(self._file[key]) or len(set(ids)) != len(ids):
            raise UserError(
                f"{self.path} has {len(ids)} {names}, {len(set(ids))} different, for "
                f"{len(self._file[key])} rows of {key}: there must be one id a row."
            )
        self._columns = {"features": self._file[key]}
        for box in ("boxes", "bbox"):
            if box in self._file:
                self._columns["boxes"] = self._file[box]
        return {name: row for row, name in enumerate(ids)}

    def _images(self) -> dict[str, Any]:
        """{id: name of its dataset or group} of the layouts with something an image."""
        found = {}
        for name in self._file:
            if name.endswith(("_boxes", "_bbox", "_cls_prob")):
                continue
            found[name.removesuffix("_features")] = name
        return found

    def read(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Features, and boxes where there are any, of ``ids``."""
        found = [self._one(name) for name in ids]
        for name, one in zip(ids, found, strict=True):
            if one[FEATURES].shape != self.shape or (BOXES in one) != self.has_boxes:
                raise UserError(
                    f"{self.where(name)} holds {_described(one)} where the first image has "
                    f"{self.shape}{' with boxes' * self.has_boxes}: extract all images alike."
                )
        kinds = (FEATURES, BOXES) if self.has_boxes else (FEATURES,)
        return {kind: np.stack([one[kind] for one in found]) for kind in kinds}

    def _one(self, name: str) -> dict[str, np.ndarray]:
        place = self._of[name]
        if isinstance(place, int):
            arrays = {key: column[place] for key, column in self._columns.items()}
        elif hasattr(self._file[place], "keys"):
            arrays = dict(self._file[place].items())
        else:
            arrays = {"features": self._file[place]}
            if f"{name}_boxes" in self._file:
                arrays["boxes"] = self._file[f"{name}_boxes"]
        key = self.array if self.array in arrays else None
        try:
            return read_regions(arrays, key, self.where(name), with_boxes=self.with_boxes)
        except OSError as error:
            raise UserError(
                f"{self.where(name)} cannot be read ({error}): copy it again."
            ) from None

    def where(self, name: str) -> str:
        """The file and the place in it."""
        return f"{self.path}, {name},"

    def identity(self, ids: Sequence[str]) -> str:
        """Of the file."""
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


def _described(one: Mapping[str, np.ndarray]) -> str:
    return f"{one[FEATURES].shape}{' with boxes' * (BOXES in one)}"
