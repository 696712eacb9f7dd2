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
