"""Precision of rankings with many correct answers: R-Precision, mAP@R, precision at K.

A tie counts against the model: of items with the same score the wrong ones come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.ranks import require_finite, row_blocks

Relevance = Callable[[int, int], np.ndarray]
"""(first, stop) -> bool [stop - first, G]: which gallery items are correct for these queries."""

DIVISORS = ("hits", "relevant")
"""Divisors of AP within the first n."""


def of_groups(query_groups: np.ndarray, gallery_groups: np.ndarray) -> Relevance:
    """Gallery items of the query's group are correct."""
    return lambda first, stop: query_groups[first:stop, None] == gallery_groups[None]


def precisions(
    scores: np.ndarray,
    relevant: Relevance,
    ks: Sequence[int] = (),
    *,
    counts: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """``R-P``, ``mAP@R``, ``R@1`` and ``P@K`` of every query, float64 [Q] in 0..1.

    With R correct items in the gallery, R-P is the share of correct items among the first R, mAP@R
    the sum of the precisions at the ranks of correct items among the first R, divided by R
    (Musgrave et al., ECCV 2020), and P@K the correct items among the first K, divided by K.

    Args:
        scores: float [Q, G], higher is better.
        relevant: which pairs are correct.
        ks: the K of P@K.
        counts: int [Q], R if it includes items that are not in the gallery.

    Raises:
        FoundNonFinite: a score is NaN or infinite.
        UserError: a query has no correct item in the gallery.
    """
    require_finite(scores)
    found = {name: np.zeros(len(scores)) for name in ("R-P", "mAP@R", "R@1")}
    found |= {f"P@{k}": np.zeros(len(scores)) for k in ks}
    for query, row, right in _rows(scores, relevant):
        count = _count(right, query) if counts is None else int(counts[query])
        hits = best_first(row, right, max(count, *ks, 1))
        so_far = np.cumsum(hits)
        found["R-P"][query] = so_far[min(count, len(so_far)) - 1] / count
        places = np.flatnonzero(hits[:count])
        found["mAP@R"][query] = (so_far[places] / (places + 1)).sum() / count
        found["R@1"][query] = hits[0]
        for k in ks:
            found[f"P@{k}"][query] = so_far[min(k, len(so_far)) - 1] / k
    return found


def average_precisions(
    scores: np.ndarray,
    relevant: Relevance,
    depths: Sequence[int | None],
    divisor: str = "hits",
) -> list[np.ndarray]:
    """AP of every query within each depth (None: the whole ranking), float64 [Q] in 0..1.

    The sum of the precisions at the ranks of correct items among the first n, divided by the number
    of correct items among these (``hits``) or by min(n, all correct items) (``relevant``); 0 for a
    query without correct items.

    Args:
        scores: float [Q, G], higher is better.
        relevant: which pairs are correct.
        depths: the values of n.
        divisor: one of `DIVISORS`.

    Raises:
        FoundNonFinite: a score is NaN or infinite.
    """
    if divisor not in DIVISORS:
        raise ValueError(f"divisor must be one of {', '.join(DIVISORS)}, got {divisor!r}")
    require_finite(scores)
    found = [np.zeros(len(scores)) for _ in depths]
    most = max(scores.shape[1] if depth is None else depth for depth in depths)
    for query, row, right in _rows(scores, relevant):
        hits = best_first(row, right, most)
        places = np.flatnonzero(hits)
        precision = np.arange(1, len(places) + 1) / (places + 1)
        for values, depth in zip(found, depths, strict=True):
            within = int(np.searchsorted(places, len(hits) if depth is None else depth))
            most_hits = min(int(right.sum()), len(row) if depth is None else depth)
            count = within if divisor == "hits" else most_hits
            values[query] = precision[:within].sum() / count if count else 0.0
    return found


def precision_recall(scores: np.ndarray, relevant: Relevance, levels: np.ndarray) -> np.ndarray:
    """Precision at every level of recall (0..1), mean over queries: float64 [levels] in 0..1.

    At recall r a query has the best precision of all ranks with recall of at least r (interpolated,
    as in TREC); 0 without correct items. Errors are those of `average_precisions`.
    """
    require_finite(scores)
    total = np.zeros(len(levels))
    for _, row, right in _rows(scores, relevant):
        hits = best_first(row, right, len(row))
        places = np.flatnonzero(hits)
        if not len(places):
            continue
        numbers = np.arange(1, len(places) + 1)
        best = np.maximum.accumulate((numbers / (places + 1))[::-1])[::-1]
        at = np.searchsorted(numbers / len(places), levels - 1e-12)
        total += best[np.minimum(at, len(places) - 1)]
    return total / len(scores)


def r_precision(scores: np.ndarray, relevant: Relevance) -> np.ndarray:
    """``R-P`` of every query, float64 [Q] in 0..1, by counting instead of sorting.

    Arguments and errors are those of `precisions`.
    """
    require_finite(scores)
    found = np.zeros(len(scores))
    for query, row, right in _rows(scores, relevant):
        count = _count(right, query)
        edge = np.partition(row, len(row) - count)[len(row) - count]
        above, tied = row > edge, row == edge
        left = count - int(above.sum())  # ranks left for the ties, the wrong ones first
        tied_hits = max(0, left - int((tied & ~right).sum()))
        found[query] = (int((right & above).sum()) + tied_hits) / count
    return found


def best_first(row: np.ndarray, right: np.ndarray, depth: int) -> np.ndarray:
    """Whether the first ``depth`` items of a ranking are correct, bool [min(depth, G)]."""
    return right[ranked(row, right, depth)]


def ranked(row: np.ndarray, right: np.ndarray, depth: int) -> np.ndarray:
    """The first ``depth`` items of a ranking by scores [G], int [min(depth, G)].

    Of items with the same score the wrong ones come first, then in the order of the gallery.
    """
    if depth < len(row) // 2:
        edge = np.partition(row, len(row) - depth)[len(row) - depth]
        kept = np.flatnonzero(row >= edge)
    else:
        kept = np.arange(len(row))
    kept = np.concatenate([kept[~right[kept]], kept[right[kept]]])
    return kept[np.argsort(-row[kept], kind="stable")[:depth]]


def _rows(scores: np.ndarray, relevant: Relevance) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(index, scores, which items are correct) of every query."""
    for first, block in row_blocks(scores):
        right = relevant(first, first + len(block))
        for k, row in enumerate(block):
            yield first + k, row, right[k]


def _count(right: np.ndarray, query: int) -> int:
    count = int(np.count_nonzero(right))
    if not count:
        raise UserError(
            f"every query needs a correct answer in the gallery, but query {query} has none: "
            "evaluate a split that holds both sides"
        )
    return count
