"""Recall of queries by the uncertainty of their codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics.ranks import recalls

BINS = 10


def by_bin(
    uncertainty: np.ndarray, ranks: np.ndarray, *, bins: int = BINS, ks: Sequence[int] = (1, 5, 10)
) -> list[dict[str, float]]:
    """Recall in bins of equally many queries, from the most certain to the least certain.

    Chun et al. (CVPR 2021) use ten bins; recall should fall. There are no more bins than queries.

    Args:
        uncertainty: float [Q], larger is less certain.
        ranks: int [Q], 0-based, as of `hmgr_jax.metrics.ranks.ranks`.
        bins: number of bins.
        ks: the K of R@K.

    Returns:
        one row per bin: ``bin`` (from 1), ``queries``, the mean ``uncertainty``, ``R@K`` in
        percent, ``medR`` and ``meanR``.

    Raises:
        FoundNonFinite: an uncertainty is NaN or infinite.
        UserError: there is no query.
    """
    uncertainty = _finite(uncertainty, len(ranks))
    order = np.argsort(uncertainty, kind="stable")
    rows = []
    for number, queries in enumerate(np.array_split(order, min(bins, len(order))), start=1):
        mean = float(uncertainty[queries].mean())
        row: dict[str, float] = {"bin": number, "queries": len(queries), "uncertainty": mean}
        rows.append(row | recalls(ranks[queries], ks))
    return rows


def rank_correlations(
    uncertainty: np.ndarray, ranks: np.ndarray, **others: np.ndarray
) -> dict[str, float]:
    """Spearman's rho (-1..1) of the uncertainty with ``rank`` and with each of ``others``.

    ``others`` are float [Q], such as the lengths of captions. Names with constant values are left
    out. Raises ``FoundNonFinite`` if an uncertainty is NaN or infinite.
    """
    uncertainty = _finite(uncertainty, len(ranks))
    each = {name: spearman(uncertainty, v) for name, v in {"rank": ranks, **others}.items()}
    return {name: rho for name, rho in each.items() if rho is not None}


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rho (-1..1) of finite numbers [n] and [n]; None if either is constant."""
    if not len(a) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)


def _finite(uncertainty: np.ndarray, count: int) -> np.ndarray:
    uncertainty = np.asarray(uncertainty, np.float64)
    if uncertainty.shape != (count,):
        raise ValueError(f"{uncertainty.shape} uncertainties do not fit {count} ranks")
    if not count:
        raise UserError("there are no queries to sort by their uncertainty: give a split with some")
    if not np.isfinite(uncertainty).all():
        item = int(np.flatnonzero(~np.isfinite(uncertainty))[0])
        raise FoundNonFinite(f"the uncertainty of item {item} is {uncertainty[item]}")
    return uncertainty
