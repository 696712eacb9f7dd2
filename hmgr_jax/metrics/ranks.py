"""Rank of the best positive by counting, in row blocks; a tie counts against the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import FoundNonFinite, UserError

BLOCK = 1 << 20
"""Scores looked at together: temporaries stay near 10 MB however large the matrix is."""


def ranks(scores: np.ndarray, query_groups: np.ndarray, gallery_groups: np.ndarray) -> np.ndarray:
    """0-based rank of the best positive of every query.

    The rank is the number of non-positive gallery items whose score is at least that of the best
    positive. A tie thus counts against the model: one that gives every pair the same score is
    ranked last, whatever the order of the gallery (counting only greater scores would rank it
    first, sorting would rank it by position).

    Args:
        scores: float [Q, G], higher is better. A transposed view ``scores.T`` is as good: it is
            read block by block and never copied as a whole.
        query_groups: int [Q].
        gallery_groups: int [G]; positives of a query are the gallery items of its group, one or
            many.

    Returns:
        int64 [Q].

    Raises:
        FoundNonFinite: a score is NaN or infinite; the first one is named by row and column.
        UserError: shapes disagree, or a query has no positive in the gallery.
    """
    return _count(scores, query_groups, gallery_groups, np.greater_equal)


def count_ties(
    scores: np.ndarray, query_groups: np.ndarray, gallery_groups: np.ndarray
) -> np.ndarray:
    """How many non-positives tie exactly with the best positive of every query, int64 [Q].

    ``ranks(...) - count_ties(...)`` are the ranks if every tie went in favour of the model.
    Arguments and errors are those of `ranks`.
    """
    return _count(scores, query_groups, gallery_groups, np.equal)


def recalls(ranks: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """``R@K`` in percent for each K, ``medR`` and ``meanR`` (1-based) of 0-based ranks [Q].

    R@K is the share of queries with rank < K, medR = floor(median) + 1, meanR = mean + 1, as in
    the evaluation of VSE++ (Faghri et al., BMVC 2018) and everything that descends from it.

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


def require_finite(scores: np.ndarray) -> None:
    """Raise `FoundNonFinite` naming the first NaN or infinite score of [Q, G] by row and column."""
    for first, block in row_blocks(scores):
        _require_finite_block(block, first)


def require_pairs(scores: np.ndarray, groups_a: np.ndarray, groups_b: np.ndarray) -> None:
    """Raise `UserError` unless ``scores`` is [n_a, n_b] for groups [n_a] and [n_b]."""
    if scores.ndim != 2 or scores.shape != (*groups_a.shape, *groups_b.shape):
        raise UserError(
            f"scores must be [queries, gallery] with one group an item, found scores "
            f"{scores.shape} with groups {groups_a.shape} and {groups_b.shape}: score and group "
            "the same items"
        )


def _count(
    scores: np.ndarray, query_groups: np.ndarray, gallery_groups: np.ndarray, compare: Callable
) -> np.ndarray:
    """Number of non-positives that ``compare`` true with the best positive, int64 [Q]."""
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
        # Row by row: count_nonzero along an axis would first turn every boolean into an int64.
        counts = np.fromiter((np.count_nonzero(row) for row in hits), np.int64, len(hits))
        # Positives that are as good as the best one are in the count; take them out again.
        counts -= np.add.reduceat(compare(own, best[rows]), starts, dtype=np.int64)
        out[first : first + len(block)] = counts
    return out


def row_blocks(scores: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, contiguous rows) of about `BLOCK` scores each.

    For a transposed view the copy turns short runs of many rows at once, within the cache; the
    comparison that follows then runs over contiguous rows in both directions.
    """
    step = max(1, BLOCK // max(1, scores.shape[1]))
    for first in range(0, scores.shape[0], step):
        yield first, np.ascontiguousarray(scores[first : first + step])


def _require_finite_block(block: np.ndarray, first: int) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        raise FoundNonFinite(
            f"every score must be finite, found {block[row, column]} in row {first + row}, "
            f"column {column}: look for NaN in the features or the weights of that item"
        )


@dataclass(frozen=True)
class _Positives:
    """The positives of query q are ``order[start[q] : start[q] + count[q]]``, gallery indices."""

    order: np.ndarray
    start: np.ndarray
    count: np.ndarray

    def of_rows(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row in the block, gallery index) of all positive pairs, and where each row starts."""
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
