"""Small arrays beside the features, a row each: true regions, labels, scores, picture sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import NpyRows

COUNTS = "counts"
"""``{split}_counts.npy``, int32 [rows]: the first so many regions of a row are true, the others
are padding and zero. Without the file all are true."""


class Kind(NamedTuple):
    """What ``{split}_{name}.npy`` holds of a row."""

    dtype: np.dtype
    filling: int
    """What stands where there is no region."""
    least: float
    per_region: bool = True

    def shape(self, regions: int) -> tuple[int, ...]:
        """Of one row: a number a region, or width and height."""
        return (regions,) if self.per_region else (2,)


_WHOLE, _SHARE = np.dtype(np.int16), np.dtype(np.float16)
KINDS: Mapping[str, Kind] = {
    "labels": Kind(_WHOLE, -1, -1),
    "scores": Kind(_SHARE, 0, -65504),
    "attributes": Kind(_WHOLE, -1, -1),
    "attribute_scores": Kind(_SHARE, 0, -65504),
    "wh": Kind(np.dtype(np.int32), 0, 1, per_region=False),
}
"""{ending: kind}; labels and attributes are -1 where a region has none, wh is in pixels."""
GIVEN = ("labels", "attributes", "scores")
"""Those that items have."""


def find_arrays(root: Path, split: str) -> dict[str, Path]:
    """{name: file} of `KINDS` and of the counts, as far as they are there."""
    paths = {name: root / f"{split}_{name}.npy" for name in (COUNTS, *KINDS)}
    return {name: path for name, path in paths.items() if path.is_file()}


def read_counts(path: Path | None, shape: tuple[int, int]) -> np.ndarray | None:
    """True regions of every row of features of ``shape`` (rows, R), int32 [rows]; None for all.

    Raises:
        UserError: another number of rows, numbers that are not whole, or one not in 1..R.
    """
    if path is None:
        return None
    rows, regions = shape
    counts = _read(path, (rows,), "iu", "a whole number a row of the features").astype(np.int64)
    bad = np.flatnonzero((counts < 1) | (counts > regions))
    if len(bad):
        raise UserError(
            f"{path} says {counts[bad[0]]} in row {bad[0]} (counted from 0) where 1 to {regions} "
            "true regions or frames were expected, as many as the features have: correct it."
        )
    return counts.astype(np.int32)


def read_array(name: str, path: Path, rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The kept ``rows`` of an array of `KINDS`, in its type.

    ``shape`` is (rows, R) of the feature file. Raises ``UserError`` for another shape or type, and
    for the first row with a number that does not fit.
    """
    kind = KINDS[name]
    regions = " and region" * kind.per_region
    wanted = f"numbers of {kind.dtype}, a row{regions} of the features"
    kinds = "iu" if kind.dtype.kind == "i" else "fiu"
    found = _read(path, (shape[0], *kind.shape(shape[1])), kinds, wanted)[rows]
    return fitted(name, found, lambda i: f"{path} holds in row {int(rows[i])} (counted from 0)")


def fitted(name: str, values: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """``values`` [n, ...] in the type of their kind; ``where(i)`` begins the refusal of row i.

    Raises:
        UserError: a row holds a number that is not finite or out of the range.
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


def demand_zero(values: np.ndarray, counts: np.ndarray, where: Callable[[int], str]) -> None:
    """Refuse ``values`` [n, R, ...] with numbers after the first ``counts`` [n] of a row.

    Raises:
        UserError: ``where(i)`` says of the first such row i what holds it.
    """
    for i, count in enumerate(counts.tolist()):
        if values[i, count:].any():
            raise UserError(
                f"{where(i)} other numbers than 0 after its {count} true regions or frames, where "
                "padding is zero: correct the counts, or fill up with zeros."
            )


def _read(path: Path, shape: tuple[int, ...], kinds: str, wanted: str) -> np.ndarray:
    file = NpyRows(path)
    if file.shape != shape or file.dtype.kind not in kinds:
        raise UserError(
            f"{path} has shape {file.shape} and type {file.dtype} where shape {shape} was "
            f"expected, {wanted}: save it so."
        )
    return file.gather(np.arange(len(file)))


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
