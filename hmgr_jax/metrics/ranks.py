"""Rank of the best positive by counting, in row blocks; a tie counts against the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import FoundNonFinite, UserError

BLOCK = 1 << 20
"""Scores processed at a time, which limits temporaries to about 10 MB."""


def ranks(scores: np.ndarray, query_groups: np.ndarray, gallery_groups: np.ndarray) -> np.ndarray:
    """0-based rank of the best positive of every query.

    The rank is the number of non-positive gallery items whose score is at least that of the best
    positive. A tie thus counts against the model: a model that gives every pair the same score is
    ranked last.

    Args:
        scores: float [Q, G], higher is better; a transposed view is never copied as a whole.
        query_groups: int [Q].
        gallery_groups: int [G]; positives of a query are the gallery items of its group.

    Returns:
        int64 [Q].

    Raises:
        FoundNonFinite: a score is NaN or infinite; the message has its row and column.
        UserError: shapes disagree, or a query has no positive in the gallery.
    """
    return _count(scores, query_groups, gallery_groups, np.greater_equal)


def count_ties(
    scores: np.ndarray, query_groups: np.ndarray, gallery_groups: np.ndarray
) -> np.ndarray:
    """Number of non-positives that tie exactly with the best positive of every query, int64 [Q].

    ``ranks(...) - count_ties(...)`` are the ranks with ties in favour of the model. Arguments and
    errors are those of `ranks`.
    """
    return _count(scores, query_groups, gallery_groups, np.equal)


def recalls(ranks: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """``R@K`` in percent for each K, ``medR`` and ``meanR`` (1-based) of 0-based ranks [Q].

    R@K is the share of queries with rank < K, medR = floor(median) + 1, meanR = mean + 1, as in
    VSE++ (Faghri et al., BMVC 2018).

    Raises:
        UserError: there is no query.
    """
    if len(ranks) == 0:
        raise UserError(
            "recall needs at least one query, found none: check that the split is not empty"
        )
    found = {f"R@{k}": 100.0 * int(np.count_nonzero(ranks < k)) / len(ranks) for k in ks}
    return found | {
        "medR": float(np.floor(np.median(ranks)) + 1),
        "meanR": float(np.mean(ranks) + 1),
    }


def chance(
    query_groups: np.ndarray, gallery_groups: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """``R@K`` in percent of a random order of the gallery, exactly; groups as in `ranks`.

    A query with c positives among G items misses them in the first K with the probability
    Π_i<K (G - c - i) / (G - i).
    """
    size = len(gallery_groups)
    positives = _positives(np.asarray(query_groups), np.asarray(gallery_groups)).count
    counts, queries = np.unique(positives, return_counts=True)
    found = {}
    for k in ks:
        drawn = np.arange(min(k, size))[:, None]
        missed = np.prod(np.maximum(size - counts - drawn, 0) / (size - drawn), axis=0)
        found[f"R@{k}"] = 100.0 * float(np.average(1.0 - missed, weights=queries))
    return found


def require_finite(scores: np.ndarray) -> None:
    """Raise `FoundNonFinite` with row and column of the first NaN or infinite score of [Q, G]."""
    for first, block in row_blocks(scores):
        _require_finite_block(block, first)


def require_pairs(scores: np.ndarray, groups_a: np.ndarray, groups_b: np.ndarray) -> None:
    """Raise `UserError` unless ``scores`` is [n_a, n_b] for groups [n_a] and [n_b]."""
    if scores.ndim != 2 or scores.shape != (*groups_a.shape, *groups_b.shape):
        raise UserError(
            f"scores must be [queries, gallery] with one group per item, found scores "
            f"{scores.shape} with groups {groups_a.shape} and {groups_b.shape}: give scores and "
            "groups of the same items"
        )


def _count(
    scores: np.ndarray, query_groups: np.ndarray, gallery_groups: np.ndarray, compare: Callable
) -> np.ndarray:
    """Number of non-positives for which ``compare`` with the best positive is true, int64 [Q]."""
    scores, query_groups, gallery_groups = map(np.asarray, (scores, query_groups, gallery_groups))
    require_pairs(scores, query_groups, gallery_groups)
    positives = _positives(query_groups, gallery_groups)
    out = np.empty(scores.shape[0], np.int64)
    for first, block in row_blocks(scores):
        _require_finite_block(block, first)
        rows, columns, starts = positives.of_rows(first, first + len(block))
        own = block[rows, columns]
        best = np.maximum.reduceat(own, starts)
        hits = compare(block, best[:, None])
        # Row by row: count_nonzero along an axis would first convert every boolean to int64.
        counts = np.fromiter((np.count_nonzero(row) for row in hits), np.int64, len(hits))
        # The count includes positives that equal the best one.
        counts -= np.add.reduceat(compare(own, best[rows]), starts, dtype=np.int64)
        out[first : first + len(block)] = counts
    return out


def row_blocks(scores: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, contiguous rows) of about `BLOCK` scores each, also of a transposed view."""
    step = max(1, BLOCK // max(1, scores.shape[1]))
    for first in range(0, scores.shape[0], step):
        yield first, np.ascontiguousarray(scores[first : first + step])


def _require_finite_block(block: np.ndarray, first: int) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        raise FoundNonFinite(
            f"every score must be finite, found {block[row, column]} in row {first + row}, "
            f"column {column}: check the features and the weights of that item for NaN"
        )


@dataclass(frozen=True)
class _Positives:
    """The positives of query q are ``order[start[q] : start[q] + count[q]]``, gallery indices."""

    order: np.ndarray
    start: np.ndarray
    count: np.ndarray

    def of_rows(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row in the block, gallery index) of all positive pairs, and the start of each row."""
        count = self.count[first:stop]
        begin = np.cumsum(count) - count
        rows = np.repeat(np.arange(len(count)), count)
        within = np.arange(len(rows)) - begin[rows]
        return rows, self.order[self.start[first:stop][rows] + within], begin


def _positives(query_groups: np.ndarray, gallery_groups: np.ndarray) -> _Positives:
    order = np.argsort(gallery_groups, kind="stable")
    sorted_groups = gallery_groups[order]
    start = np.searchsorted(sorted_groups, query_groups, side="left")
    count = np.searchsorted(sorted_groups, query_groups, side="right") - start
    if not count.all():
        query = int(np.argmin(count))
        raise UserError(
            f"every query needs a positive in the gallery, but no gallery item has group "
            f"{query_groups[query]} of query {query}: evaluate a split that holds both sides"
        )
    return _Positives(order, start, count)
