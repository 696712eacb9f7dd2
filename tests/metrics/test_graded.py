"""Rank correlations by hand: few pairs, ties, several raters, and nothing to compare."""

import numpy as np
import pytest

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics.graded import rank_correlation, rater_agreement


def by_counting(a, b):
    """(tau b, tau c) from concordant and discordant pairs of observations, one at a time."""
    agree = tied_a = tied_b = 0
    n = len(a)
    for i in range(n):
        for j in range(i):
            x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
            agree, tied_a, tied_b = agree + x * y, tied_a + (x == 0), tied_b + (y == 0)
    pairs, m = n * (n - 1) / 2, min(len(set(a)), len(set(b)))
    return (
        100 * agree / np.sqrt((pairs - tied_a) * (pairs - tied_b)),
        100 * 2 * agree / (n**2 * (m - 1) / m),
    )


def test_one_swap_among_four():
    found = rank_correlation(np.array([0.1, 0.2, 0.3, 0.9]), np.array([1, 3, 2, 4]))
    # 5 pairs of pairs agree, 1 does not; the squared differences of ranks sum to 2.
    assert found["kendall_tau_b"] == pytest.approx(100 * 4 / 6)
    assert found["kendall_tau_c"] == pytest.approx(100 * 4 / 6)
    assert found["spearman"] == pytest.approx(100 * (1 - 6 * 2 / 60))


def test_ties_of_the_judgments():
    found = rank_correlation(np.array([1.0, 2, 3, 4]), np.array([0, 0, 1, 1]))
    assert found["kendall_tau_b"] == pytest.approx(100 * 4 / np.sqrt(6 * 4))
    assert found["kendall_tau_c"] == pytest.approx(100)
    # Ranks 1.5, 1.5, 3.5, 3.5 against 1, 2, 3, 4.
    assert found["spearman"] == pytest.approx(100 * 4 / np.sqrt(5 * 4))
    turned = rank_correlation(np.array([1.0, 2, 3, 4]), np.array([1, 1, 0, 0]))
    assert turned == pytest.approx({name: -value for name, value in found.items()})


def test_every_rating_of_several_raters_counts():
    rng = np.random.default_rng(0)
    scores = np.round(rng.standard_normal(30), 1)
    ratings = rng.integers(1, 5, (30, 3))
    ratings[:, 0] = np.clip(np.round(scores + 2.5), 1, 4)
    found = rank_correlation(scores, ratings)
    a, b = np.repeat(scores, 3), ratings.reshape(-1)
    expected = by_counting(a.tolist(), b.tolist())
    np.testing.assert_allclose([found["kendall_tau_b"], found["kendall_tau_c"]], expected)
    alone = rank_correlation(scores, ratings[:, 0])
    assert alone["kendall_tau_b"] > found["kendall_tau_b"] + 20


def test_only_the_order_of_the_scores_counts():
    rng = np.random.default_rng(1)
    scores, ratings = rng.standard_normal(50), rng.integers(0, 4, 50)
    assert rank_correlation(np.exp(3 * scores), ratings) == rank_correlation(scores, ratings)


def test_raters_by_the_mean_of_the_others():
    ratings = np.array([[1, 1, 2], [4, 3, 4], [2, 2, 1], [1, 4, 4]])
    others = [1.5, 1.5, 1, 3.5, 4, 3.5, 1.5, 1.5, 2, 4, 2.5, 2.5]
    found = rater_agreement(ratings)
    expected = by_counting(others, ratings.reshape(-1).tolist())
    np.testing.assert_allclose([found["kendall_tau_b"], found["kendall_tau_c"]], expected)
    alike = rater_agreement(np.array([[1, 1, 1], [2, 2, 2], [4, 4, 4]]))
    assert alike["kendall_tau_b"] == pytest.approx(100)


def test_rejects_constant_and_non_finite_scores():
    with pytest.raises(UserError, match="the 4 judged pairs have no two different scores"):
        rank_correlation(np.ones(4), np.arange(4))
    with pytest.raises(UserError, match="no two different ratings"):
        rank_correlation(np.arange(4), np.ones(4))
    with pytest.raises(FoundNonFinite, match="judged pair 2 is nan"):
        rank_correlation(np.array([1, 2, np.nan, 4]), np.arange(4))
