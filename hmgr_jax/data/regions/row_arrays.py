"""Arrays beside the features, one row per image: region counts, boxes, labels, scores, sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import NpyRows

COUNTS = "counts"
"""``{split}_counts.npy``, int32 [rows]: the number of true regions of a row; the others are zero
padding. Without the file all are true."""


class Kind(NamedTuple):
    """Type and range of ``{split}_{name}.npy``."""

    dtype: np.dtype
    filling: int
    """Padding value."""
    least: float
    per_region: bool = True

    def shape(self, regions: int) -> tuple[int, ...]:
        """Shape of one row: a number per region, or width and height."""
        return (regions,) if self.per_region else (2,)


_WHOLE, _SHARE = np.dtype(np.int16), np.dtype(np.float16)
KINDS: Mapping[str, Kind] = {
    "labels": Kind(_WHOLE, -1, -1),
    "scores": Kind(_SHARE, 0, -65504),
    "attributes": Kind(_WHOLE, -1, -1),
    "attribute_scores": Kind(_SHARE, 0, -65504),
    "wh": Kind(np.dtype(np.int32), 0, 1, per_region=False),
}
"""{ending: kind}; labels and attributes are -1 for none, wh is in pixels."""
GIVEN = ("labels", "attributes", "scores")
"""Arrays that batches hold."""


def find_arrays(root: Path, split: str) -> dict[str, Path]:
    """{name: file} of the counts and of `KINDS` that exist."""
    paths = {name: root / f"{split}_{name}.npy" for name in (COUNTS, *KINDS)}
    return {name: path for name, path in paths.items() if path.is_file()}


def read_counts(path: Path | None, shape: tuple[int, int]) -> np.ndarray | None:
    """Read the true regions of every row of features [rows, R], int32 [rows]; None for all.

    Raises:
        UserError: another number of rows, or a count that is not an integer in 1..R.
    """
    if path is None:
        return None
    rows, regions = shape
    counts = _read(path, (rows,), "iu", "an integer per row of the features").astype(np.int64)
    bad = np.flatnonzero((counts < 1) | (counts > regions))
    if len(bad):
        raise UserError(
            f"{path} holds {counts[bad[0]]} in row {bad[0]} (counted from 0) where 1 to {regions} "
            "true regions or frames were expected: correct it."
        )
    return counts.astype(np.int32)


def read_array(name: str, path: Path, rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Read ``rows`` of an array of `KINDS`; ``shape`` is (rows, R) of the feature file.

    Raises:
        UserError: another shape or type, or a value out of range; names the first row.
    """
    kind = KINDS[name]
    regions = " and region" * kind.per_region
    wanted = f"one {kind.dtype} per row{regions} of the features"
    kinds = "iu" if kind.dtype.kind == "i" else "fiu"
    found = _read(path, (shape[0], *kind.shape(shape[1])), kinds, wanted)[rows]
    return convert_array(
        name, found, lambda i: f"{path} holds in row {int(rows[i])} (counted from 0)"
    )


def convert_array(name: str, values: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """Convert ``values`` [n, ...] to the type of their kind.

    Raises:
        UserError: a value is not finite or out of range; the message begins with ``where(row)``.
    """
    kind = KINDS[name]
    most = np.iinfo(kind.dtype).max if kind.dtype.kind == "i" else np.finfo(kind.dtype).max
    fits = ((values >= kind.least) & (values <= most)).reshape(len(values), -1).all(axis=1)
    bad = np.flatnonzero(~fits)
    if len(bad):
        row = values[int(bad[0])]
        wrong = row[~((row >= kind.least) & (row <= most))].flat[0]
        raise UserError(
            f"{where(int(bad[0]))} {name} of {wrong} where {kind.least:.0f} to {most:.0f} was "
            "expected: correct it."
        )
    return values.astype(kind.dtype)


def check_zero_padding(values: np.ndarray, counts: np.ndarray, where: Callable[[int], str]) -> None:
    """Check that ``values`` [n, R, ...] are zero after the first ``counts`` [n] of a row.

    Raises:
        UserError: the message begins with ``where(row)`` of the first other row.
    """
    for i, count in enumerate(counts.tolist()):
        if values[i, count:].any():
            raise UserError(
                f"{where(i)} values other than 0 after its {count} true regions or frames: correct "
                "the counts, or pad with zeros."
            )


_SLACK = 0.02  # detectors may exceed the image by a pixel or two


def find_boxes(root: Path, split: str) -> list[Path]:
    """Files of a split's boxes: none, one in 0..1, or one in pixels and one of image sizes."""
    relative = root / f"{split}_boxes.npy"
    if relative.is_file():
        return [relative]
    pixels = root / f"{split}_ims_bbx.npy"
    if not pixels.is_file():
        return []
    sizes = root / f"{split}_ims_size.npy"
    if not sizes.is_file():
        raise UserError(
            f"{pixels} holds boxes in pixels but {sizes} is missing: add widths and heights as a "
            "plain array [rows, 2]."
        )
    return [pixels, sizes]


def read_boxes(
    files: list[Path], rows: np.ndarray, shape: tuple[int, int], counts: np.ndarray | None = None
) -> np.ndarray:
    """Read the boxes of ``rows``, float32 [n, R, 4] xyxy in 0..1.

    ``shape`` is (rows, R) of the feature file. ``files`` come from `find_boxes`: one file is in
    0..1, two are pixels (xyxy) and image sizes (width, height). ``counts`` (int [rows]) are the
    true regions of every row of the file, None for all.

    Raises:
        UserError: another shape, or a box that is not finite, outside its image, or non-zero
            padding.
    """
    wanted = "numbers of the rows of the features"
    boxes = _read(files[0], (*shape, 4), "fiu", wanted, rows).astype(np.float64)
    if len(files) == 2:
        size = _read(files[1], (shape[0], 2), "fiu", wanted, rows).astype(np.float64)
        if not (size > 0).all():
            raise UserError(f"{files[1]} holds an image size that is not positive: correct it.")
        boxes = boxes / np.tile(size, 2)[:, None, :]

    def where(i: int) -> str:
        return f"{files[0]} holds in row {int(rows[i])}"

    if counts is not None:
        check_zero_padding(boxes, counts[rows], where)
    return clip_boxes(boxes, where)


def clip_boxes(boxes: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """Clip boxes [n, R, 4] to 0..1, as float32.

    Raises:
        UserError: a box is not finite, upside down, or outside its image; the message begins with
            ``where(row)``.
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


def _read(
    path: Path, shape: tuple[int, ...], kinds: str, wanted: str, rows: np.ndarray | None = None
) -> np.ndarray:
    """Read ``rows`` (None: all) of an array after a check of its shape and kind of type."""
    file = NpyRows(path)
    if file.shape != shape or file.dtype.kind not in kinds:
        raise UserError(
            f"{path} has shape {file.shape} and type {file.stored} where shape {shape} was "
            f"expected, {wanted}: save it so."
        )
    return file.gather(np.arange(len(file)) if rows is None else rows)
