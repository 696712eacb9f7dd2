"""Region features of images, read row by row from one ``.npy`` file."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from hmgr_jax.data.npy_rows import NpyRows, Rows
from hmgr_jax.data.split import Items
from hmgr_jax.errors import FoundNonFinite, UserError

SCAN_BELOW = 2 << 30  # bytes: a smaller file is checked for NaN whole when it is opened
_BLOCK_BYTES = 64 << 20
_EXPONENT: dict[int, np.uint16 | np.uint32] = {2: np.uint16(0x7C00), 4: np.uint32(0x7F800000)}


class RegionSource:
    """Images as region features [R, D], float16 or float32, with boxes where there are any.

    ``rows`` (int [n]) is the row of the file that holds each image, by default every row is one;
    ``boxes`` float32 [n, R, 4] are xyxy in 0..1. A NaN or infinite feature raises
    ``FoundNonFinite`` with file and row: when the source is made for files below 2 GiB, else when
    the row is first gathered.
    """

    lengths: np.ndarray | None = None

    def __init__(
        self,
        path: str | Path | Rows,
        rows: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
    ) -> None:
        self.file = open_features(path)
        self.rows = np.arange(len(self.file)) if rows is None else np.asarray(rows, np.int64)
        self.boxes = boxes
        self._checked = np.zeros(len(self.file), bool)
        if self.file.nbytes < SCAN_BELOW:
            step = max(1, _BLOCK_BYTES // self.file.row_bytes)
            for start in range(0, len(self.file), step):
                block = np.arange(start, min(start + step, len(self.file)))
                self._check(block, self.file.gather(block))

    def keep(self, rows: np.ndarray, boxes: np.ndarray | None = None) -> RegionSource:
        """The same file with other ``rows`` and ``boxes``; what was checked stays checked."""
        kept = copy.copy(self)
        kept.rows, kept.boxes = np.asarray(rows, np.int64), boxes
        return kept

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(R, D): regions an image and features a region."""
        return self.file.shape[1], self.file.shape[2]

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """``{"regions": [k, R, D], "n_regions": int32 [k], "boxes": float32 [k, R, 4]?}``."""
        items = np.asarray(items, np.int64).reshape(-1)
        rows = self.rows[items]
        regions = self.file.gather(rows)
        if not self._checked[rows].all():
            self._check(rows, regions)
        found: Items = {
            "regions": regions,
            "n_regions": np.full(len(items), self.feature_shape[0], np.int32),
        }
        if self.boxes is not None:
            found["boxes"] = self.boxes[items]
        return found

    def _check(self, rows: np.ndarray, regions: np.ndarray) -> None:
        """Refuse a row with NaN or infinity, and remember the others as checked."""
        exponent = _EXPONENT[self.file.dtype.itemsize]
        bits = regions.view(exponent.dtype)
        for row, values in zip(rows.tolist(), bits, strict=True):
            # All bits of the exponent set: three times faster than isfinite for float16.
            if not self._checked[row] and (values & exponent).max() == exponent:
                raise FoundNonFinite(
                    f"{self.file.path} holds NaN or infinity in {self.file.spot(row)}: extract the "
                    "features of that image again."
                )
            self._checked[row] = True


def open_features(path: str | Path | Rows) -> Rows:
    """Open a feature file and refuse one that is not float16 or float32 [rows, R, D]."""
    file: Rows = NpyRows(path) if isinstance(path, str | Path) else path
    if file.dtype not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise UserError(
            f"{path} holds {file.dtype} where float16 or float32 was expected: convert it."
        )
    if len(file.shape) != 3 or 0 in file.shape:
        raise UserError(
            f"{path} has shape {file.shape} where [rows, regions, features] was expected: "
            "save one row of region features an image."
        )
    return file
