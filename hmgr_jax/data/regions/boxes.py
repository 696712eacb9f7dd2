"""Boxes of regions: read, brought to xyxy in 0..1 once and out of place, and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hmgr_jax.data.regions.row_arrays import demand_zero
from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import NpyRows

_SLACK = 0.02  # detectors overshoot the border of an image by a pixel or two


def find_boxes(root: Path, split: str) -> list[Path]:
    """The files that hold a split's boxes: none, one in 0..1, or pixels with image sizes."""
    relative = root / f"{split}_boxes.npy"
    if relative.is_file():
        return [relative]
    pixels = root / f"{split}_ims_bbx.npy"
    if not pixels.is_file():
        return []
    sizes = root / f"{split}_ims_size.npy"
    if not sizes.is_file():
        raise UserError(
            f"{pixels} holds boxes in pixels but {sizes} is missing: add it as a plain "
            "[rows, 2] array of widths and heights."
        )
    return [pixels, sizes]


def read_boxes(
    files: list[Path],
    rows: np.ndarray,
    shape: tuple[int, int],
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """Boxes of the kept ``rows``, float32 [n, R, 4] xyxy in 0..1.

    ``shape`` is (rows, R) of the feature file. ``files`` come from `find_boxes`: one file is in
    0..1 already, two are pixels (xyxy) and image sizes (width, height). ``counts`` (int [rows])
    are the true regions of every row of the file, None for all. Raises ``UserError`` for another
    shape, a non-finite box, one outside its image, or one that is padding and not zero.
    """
    boxes = _read(files[0], rows, (*shape, 4))
    if len(files) == 2:
        size = _read(files[1], rows, (shape[0], 2))
        if not (size > 0).all():
            raise UserError(f"{files[1]} holds an image size that is not positive: mend it.")
        boxes = boxes / np.tile(size, 2)[:, None, :]
    if counts is not None:
        demand_zero(boxes, counts[rows], lambda i: f"{files[0]} holds in row {int(rows[i])}")
    return within(boxes, lambda i: f"{files[0]} holds in row {int(rows[i])}")


def within(boxes: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """``boxes`` [n, R, 4] as float32 clipped to 0..1; ``where(i)`` begins the refusal of row i.

    Raises ``UserError`` for a box that is not finite, upside down, or outside its image.
    """
    low, high = boxes.min(axis=(1, 2)), boxes.max(axis=(1, 2))
    upside_down = (boxes[..., 2:] < boxes[..., :2]).any(axis=(1, 2))
    bad = np.flatnonzero(~(low >= -_SLACK) | ~(high <= 1 + _SLACK) | upside_down)
    if len(bad):
        first = int(bad[0])
        raise UserError(
            f"{where(first)} boxes from {low[first]:.3g} to {high[first]:.3g} where x1, y1, x2, y2 "
            "within the image (0 to 1 after division by its size) were expected: convert them."
        )
    return np.clip(boxes, 0.0, 1.0).astype(np.float32)


def _read(path: Path, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of a small array as float64, its whole shape checked."""
    file = NpyRows(path)
    if file.shape != shape or file.dtype.kind not in "fiu":
        raise UserError(
            f"{path} has shape {file.shape} and type {file.dtype} where numbers of shape {shape} "
            "were expected (the rows of the features): save it so."
        )
    return file.gather(rows).astype(np.float64)
