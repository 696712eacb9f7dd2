"""A quantity as we compute it beside the same as somebody else's code did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError

ATOL, RTOL = 1e-5, 1e-4
RTOL_NORMS = 1e-3
"""Of gradient norms."""


@dataclass(frozen=True)
class Answer:
    """A quantity as we compute it."""

    value: Any
    """An array or a number."""
    labels: Sequence[str] | None = None
    """Names of the entries of a vector, to say which one is off."""
    rtol: float = RTOL
    atol: float = ATOL


@dataclass(frozen=True)
class Comparison:
    """One quantity of a case, ours beside theirs."""

    case: str
    quantity: str
    error: float
    """The largest ``|ours - theirs|``; NaN where they cannot be compared."""
    rtol: float
    fault: str
    """What is off, and where; empty where nothing is."""
    atol: float = ATOL

    def row(self) -> dict[str, str]:
        """The cells of a table."""
        return {
            "case": self.case,
            "quantity": self.quantity,
            "largest error": f"{self.error:.1e}",
            "tolerance": f"{self.atol:.0e} + {self.rtol:.0e} |x|",
            "ok": f"NO, {self.fault}" if self.fault else "yes",
        }


def compare(case: str, quantity: str, answer: Answer, theirs: np.ndarray) -> Comparison:
    """Elementwise ``|ours - theirs| <= atol + rtol |theirs|``, and both finite."""
    ours = np.asarray(answer.value, np.float64)
    if ours.shape != theirs.shape or theirs.dtype.kind not in "iuf" or not ours.size:
        fault = f"ours is {list(ours.shape)}, theirs {theirs.dtype}{list(theirs.shape)}"
        return Comparison(case, quantity, np.nan, answer.rtol, fault, answer.atol)
    theirs = theirs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs(ours - theirs)
        excess = error - (answer.atol + answer.rtol * np.abs(theirs))
    excess = np.where(np.isfinite(ours) & np.isfinite(theirs), excess, np.inf)
    fault = ""
    if not (excess <= 0).all():
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        fault = f"{_place(worst, answer.labels)}{ours[worst]:.7g} instead of {theirs[worst]:.7g}"
    return Comparison(case, quantity, float(error.max()), answer.rtol, fault, answer.atol)


def _place(index: tuple[Any, ...], labels: Sequence[str] | None) -> str:
    if not index:
        return ""
    return f"{labels[index[0]]}: " if labels else f"{[int(i) for i in index]}: "


def in_order(norms: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Gradient norms in the order of a case's ``grad_names``; UserError if it has others."""
    unknown = [n for n in names if n not in norms]
    if unknown:
        raise UserError(f"its grad_names have {', '.join(unknown)}, not of this model: remove it.")
    return [norms[n] for n in names]
