"""Region features of images, or frame features of videos, read by row from a ``.npy`` file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.regions.row_arrays import check_zero_padding
from hmgr_jax.data.split import Items
from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import LARGEST, NpyRows, Rows, check_features

SCAN_BELOW = 2 << 30  # bytes; smaller files are checked for NaN when opened
_BLOCK_BYTES = 64 << 20
ITEMS = {"image": ("regions", "n_regions"), "video": ("frames", "n_frames")}
"""{modality: names of the features and of the number of true ones}."""
_EXPONENT: dict[int, tuple[Any, Any]] = {
    2: (np.uint16(0x7C00), np.uint16(0x7C00)),
    4: (np.uint32(0x7F800000), LARGEST.view(np.uint32)),
}
"""{bytes of a number: (the bits of its exponent, those of NaN, infinity or `LARGEST`)}."""


class RegionSource:
    """Images as region features, or videos as frame features, [R, D] of float16 or float32.

    ``rows`` (int [n]) is the row of the file of each image, by default all in order. ``counts``
    (int32, one per row of the file) are the true regions of a row, the others are padding; None is
    all. ``more`` ({name: [n, R, ...]}) are boxes (xyxy in 0..1), labels, attributes and scores, if
    given; ``visual`` names the modality (`ITEMS`).

    A NaN or infinite feature raises ``FoundNonFinite``, and non-zero padding ``UserError``, with
    file and row: at construction for files below 2 GiB, else when the row is first gathered.
    """

    lengths: np.ndarray | None = None

    def __init__(
        self,
        path: str | Path | Rows,
        rows: np.ndarray | None = None,
        more: Mapping[str, np.ndarray] | None = None,
        *,
        counts: np.ndarray | None = None,
        visual: str = "image",
    ) -> None:
        self.file = open_features(path)
        self.rows = np.arange(len(self.file)) if rows is None else np.asarray(rows, np.int64)
        self.more: Mapping[str, np.ndarray] = more or {}
        self.counts, self.visual = counts, visual
        self._checked = np.zeros(len(self.file), bool)
        if self.file.nbytes < SCAN_BELOW:
            step = max(1, _BLOCK_BYTES // self.file.row_bytes)
            for start in range(0, len(self.file), step):
                block = np.arange(start, min(start + step, len(self.file)))
                self._check(block, self.file.gather(block))

    def keep(self, rows: np.ndarray, more: Mapping[str, np.ndarray] | None = None) -> RegionSource:
        """Copy with other ``rows`` and ``more``; checked rows are not checked again."""
        kept = copy.copy(self)
        kept.rows, kept.more = np.asarray(rows, np.int64), more or {}
        return kept

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(R, D): regions per image and features per region."""
        return self.file.shape[1], self.file.shape[2]

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """``{"regions": [k, R, D], "n_regions": int32 [k], "boxes": float32 [k, R, 4]?, ...}``.

        If given, ``"labels"`` and ``"attributes"`` int16 [k, R] and ``"scores"`` float16 [k, R].
        Videos have ``"frames"`` and ``"n_frames"`` instead of the first two.
        """
        items = np.asarray(items, np.int64).reshape(-1)
        rows = self.rows[items]
        regions = self.file.gather(rows)
        if not self._checked[rows].all():
            self._check(rows, regions)
        count = self.feature_shape[0]
        name, number = ITEMS[self.visual]
        found: Items = {
            name: regions,
            number: np.full(len(rows), count, np.int32)
            if self.counts is None
            else self.counts[rows],
        }
        return found | {key: values[items] for key, values in self.more.items()}

    def _check(self, rows: np.ndarray, regions: np.ndarray) -> None:
        """Check rows for NaN, infinity and non-zero padding, and remember them."""
        exponent, most = _EXPONENT[self.file.dtype.itemsize]
        bits = regions.view(exponent.dtype)
        for i, (row, values) in enumerate(zip(rows.tolist(), bits, strict=True)):
            # The bits of the exponent: three times faster than isfinite for float16.
            if not self._checked[row] and (values & exponent).max() >= most:
                check_features(
                    regions[i : i + 1],
                    lambda _, row=row: f"{self.file.path}, {self.file.spot(row)},",  # type: ignore[misc]
                    "extract the features of that image again.",
                )
        if self.counts is not None:
            where = f"{self.file.path} holds in row"
            check_zero_padding(regions, self.counts[rows], lambda i: f"{where} {int(rows[i])}")
        self._checked[rows] = True


def open_features(path: str | Path | Rows) -> Rows:
    """Open a feature file; ``UserError`` unless it is floats [rows, R, D]."""
    file: Rows = NpyRows(path) if isinstance(path, str | Path) else path
    if file.dtype not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise UserError(
            f"{file.path} holds {file.dtype} where floating-point numbers were expected: convert "
            "it."
        )
    if len(file.shape) != 3 or 0 in file.shape:
        raise UserError(
            f"{file.path} has shape {file.shape} where [rows, regions, features] was expected: "
            "save one row of region features per image."
        )
    return file
