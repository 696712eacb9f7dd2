"""Region features of images, read row by row from one ``.npy`` file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hmgr_jax.data.regions.row_arrays import demand_zero
from hmgr_jax.data.split import Items
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.files.npy_rows import NpyRows, Rows

SCAN_BELOW = 2 << 30  # bytes: a smaller file is checked for NaN whole when it is opened
_BLOCK_BYTES = 64 << 20
ITEMS = {"image": ("regions", "n_regions"), "video": ("frames", "n_frames")}
"""What rows of features are called, and the number of the true ones."""
_EXPONENT: dict[int, np.uint16 | np.uint32] = {2: np.uint16(0x7C00), 4: np.uint32(0x7F800000)}


class RegionSource:
    """Images as region features [R, D], or videos as frames, float16 or float32, with what is known
    of the regions.

    ``rows`` (int [n]) is the row of the file that holds each image, by default every row is one.
    ``counts`` (int32, one a row of the file) tells how many regions of a row are true, the others
    are padding; None is all. ``more`` ({name: [n, R, ...]}) are boxes (xyxy in 0..1), labels,
    attributes and scores, as far as the data has them; ``visual`` names the rows (`ITEMS`).

    A NaN or infinite feature raises ``FoundNonFinite``, and padding other than zero ``UserError``,
    with file and row: when the source is made for files below 2 GiB, else when the row is first
    gathered.
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
        """The same file with other ``rows`` and ``more``; what was checked stays checked."""
        kept = copy.copy(self)
        kept.rows, kept.more = np.asarray(rows, np.int64), more or {}
        return kept

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(R, D): regions an image and features a region."""
        return self.file.shape[1], self.file.shape[2]

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """``{"regions": [k, R, D], "n_regions": int32 [k], "boxes": float32 [k, R, 4]?, ...}``.

        Further ``"labels"`` and ``"attributes"`` int16 [k, R] and ``"scores"`` float16 [k, R] where
        there are any; of videos the first two are ``"frames"`` and ``"n_frames"``.
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
        """Refuse a row with NaN, infinity or padding that is not zero; the others are checked."""
        exponent = _EXPONENT[self.file.dtype.itemsize]
        bits = regions.view(exponent.dtype)
        for row, values in zip(rows.tolist(), bits, strict=True):
            # All bits of the exponent set: three times faster than isfinite for float16.
            if not self._checked[row] and (values & exponent).max() == exponent:
                raise FoundNonFinite(
                    f"{self.file.path} holds NaN or infinity in {self.file.spot(row)}: extract the "
                    "features of that image again."
                )
        if self.counts is not None:
            where = f"{self.file.path} holds in row"
            demand_zero(regions, self.counts[rows], lambda i: f"{where} {int(rows[i])}")
        self._checked[rows] = True


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
