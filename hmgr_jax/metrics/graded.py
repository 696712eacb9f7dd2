"""Graded relevance: rank correlation of a model's scores with human ratings of pairs."""

from __future__ import annotations

import numpy as np
from scipy import stats

from hmgr_jax.errors import FoundNonFinite, UserError

MEASURES = ("kendall_tau_b", "kendall_tau_c", "spearman")


def rank_correlation(scores: np.ndarray, ratings: np.ndarray) -> dict[str, float]:
    """Kendall's tau b and c and Spearman's rho, times 100, of scores and ratings of the same pairs.

    Every rating is an observation: with several raters a score is repeated for each rating of its
    pair (CLIPScore, Hessel et al., EMNLP 2021, on Flickr8k-Expert). Tau b corrects for ties on both
    sides, tau c for different numbers of values.

    Args:
        scores: float [n], higher is better.
        ratings: float [n] or [n, raters], higher is better.

    Returns:
        {measure: value}, -100..100.

    Raises:
        FoundNonFinite: a score is NaN or infinite.
        UserError: all scores or all ratings are equal.
    """
    ratings = np.atleast_2d(np.asarray(ratings, np.float64).T).T
    scores = np.asarray(scores, np.float64)
    if scores.shape != ratings.shape[:1]:
        raise ValueError(f"{scores.shape} scores do not fit {ratings.shape} ratings")
    if not np.isfinite(scores).all():
        pair = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise FoundNonFinite(f"the score of judged pair {pair} is {scores[pair]}")
    return _correlation(np.repeat(scores, ratings.shape[1]), ratings.ravel())


def rater_agreement(ratings: np.ndarray) -> dict[str, float]:
    """Agreement between raters: each rater's ratings, with the mean of the others as the score.

    Pooled as in `rank_correlation`, so it is the upper bound to expect of a model.

    Args:
        ratings: float [n, raters], at least two raters.
    """
    ratings = np.asarray(ratings, np.float64)
    others = (ratings.sum(axis=1, keepdims=True) - ratings) / (ratings.shape[1] - 1)
    return _correlation(others.ravel(), ratings.ravel())


def _correlation(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    for what, values in (("score", a), ("rating", b)):
        if len(np.unique(values)) < 2:
            raise UserError(
                f"the {len(values)} judged pairs have no two different {what}s and thus no order "
                "to compare: give more judgments, or a model that distinguishes them"
            )
    found = (
        stats.kendalltau(a, b, variant="b").statistic,
        stats.kendalltau(a, b, variant="c").statistic,
        stats.spearmanr(a, b).statistic,
    )
    return {name: 100.0 * float(value) for name, value in zip(MEASURES, found, strict=True)}
