"""Labels of feature sets, as numbers of classes or as 0 and 1 for each class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hmgr_jax.errors import UserError


def flat(labels: np.ndarray) -> np.ndarray:
    """Labels as class numbers [n], from any row or column, or as classes [n, K]."""
    if labels.ndim > 1 and 1 in labels.shape:
        return labels.reshape(-1)
    return labels


def classes(given: Mapping[str, np.ndarray | None], where: str) -> dict[str, np.ndarray]:
    """Convert labels to {split: uint8 [n, K]}, with the K classes of all splits.

    A negative number is no class: its row is zero.

    Args:
        given: {split: its labels, see `flat`}; all None for a set without labels.
        where: the file or folder, for messages.

    Raises:
        UserError: only some splits have labels, classes differ, or labels are neither class numbers
            nor 0 and 1.
    """
    known = {role: labels for role, labels in given.items() if labels is not None}
    if not known:
        return {}
    if len(known) < len(given):
        lacking = next(role for role in given if role not in known)
        raise UserError(
            f"{where} has labels of {', '.join(known)} but none of {lacking}: add them, or name "
            "yours as data.features.labels."
        )
    shapes = {labels.shape[1:] for labels in known.values()}
    if len(shapes) > 1:
        raise UserError(
            f"labels of {where} have different classes in its splits, {sorted(map(str, shapes))}: "
            "use the same in all."
        )
    if shapes != {()}:
        return {role: _multi_hot(where, role, of) for role, of in known.items()}
    names = np.unique(np.concatenate(list(known.values())))
    if names.dtype.kind in "if":
        names = names[names >= 0]
    return {
        role: np.equal(of.reshape(-1, 1), names[None, :]).astype(np.uint8)
        for role, of in known.items()
    }


def _multi_hot(where: str, role: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        raise UserError(
            f"labels of {role} of {where} are {list(labels.shape)} with values up to "
            f"{labels.max()}: give one class per row, or 0 or 1 for each class."
        )
    return labels.astype(np.uint8)
