"""Images of different numbers of regions in arrays of one size: true ones first, then padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hmgr_jax.data.regions.row_arrays import COUNTS, KINDS
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES, Array, beside, features

Found = Mapping[str, np.ndarray]
"""Of one image: features [n, D], and boxes, labels and so on [n, ...]."""


def plan_arrays(
    size: int, others: Sequence[str], counts: np.ndarray, cut: int | None, *, exact: bool = True
) -> dict[str, Array]:
    """What is written of images of ``counts`` regions, the first ``cut`` of each.

    ``others`` name what there is beside the features of ``size`` numbers a region. Counts are
    written where they differ, or where they are not ``exact`` and true ones may be smaller.
    """
    kept = counts if cut is None else np.minimum(counts, cut)
    most = int(kept.max())
    ragged = [COUNTS] if not exact or kept.min() < most else []
    return {FEATURES: features(most, size)} | {name: beside(name, most) for name in
                                               (*others, *ragged)}  # fmt: skip


def fill(found: Sequence[Found], arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """The arrays of several images [k, ...]; features as float32, padding 0 (of labels -1)."""
    filled = {}
    for name, array in arrays.items():
        if name == COUNTS:
            filled[name] = np.asarray([len(one[FEATURES]) for one in found], array.dtype)
            continue
        dtype = np.dtype(np.float32) if name == FEATURES else array.dtype
        filling = KINDS[name].filling if name in KINDS else 0
        values = np.full((len(found), *array.shape), filling, dtype)
        with np.errstate(over="ignore"):  # infinity, which is refused with the file
            for row, one in zip(values, found, strict=True):
                row[: len(one[name])] = one[name]
        filled[name] = values
    return filled


def fitting(
    found: Found, arrays: Mapping[str, Array], cut: int | None, where: str
) -> dict[str, np.ndarray]:
    """What is planned of an image as read, its first ``cut`` regions.

    Raises:
        UserError: it has no boxes or labels where others do, other features, or other regions than
            it was planned with.
    """
    most, size = arrays[FEATURES].shape
    values = found[FEATURES]
    if values.shape[1] != size:
        raise UserError(
            f"{where} holds features of {values.shape[1]} numbers where the first has {size}: "
            "extract all alike."
        )
    lacking = next((name for name in arrays if name not in found and name != COUNTS), None)
    if lacking is not None:
        advice = "give files of one extraction"
        if lacking == BOXES:
            advice = "extract it again, or leave all out with --no-boxes"
        raise UserError(f"{where} holds no {lacking} where others do: {advice}.")
    kept = {name: found[name][:cut] for name in arrays if name != COUNTS}
    count = len(kept[FEATURES])
    if count > most or (count < most and COUNTS not in arrays):
        raise UserError(
            f"{where} holds {count} regions or frames where {most} were planned: it has changed "
            "meanwhile, so start again."
        )
    return kept
