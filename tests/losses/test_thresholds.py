"""Thresholds of positives and hardest negatives, and the quartiles for setting them."""

import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.losses.mined import hardest_of
from hmgr_jax.losses.thresholds import calibrated, quantiles, spread, threshold_hinge
from hmgr_jax.losses.triplet import negatives

SCORES = jnp.asarray([[0.9, 0.6, 0.1], [0.2, 0.5, 0.4], [0.3, 0.7, 0.8]])


def test_threshold_hinge_equals_a_hand_calculation():
    valid = jnp.ones(3, bool)
    found = hardest_of(SCORES, negatives(valid))
    # positives 0.5 is 0.2 below; rows 0.6, 0.4, 0.7 and columns 0.3, 0.7, 0.4 against 0.5
    expected = 0.2 + (0.1 + 0.2) + 0.2
    assert float(threshold_hinge(found, valid)) == pytest.approx(expected, rel=1e-5)
    assert float(threshold_hinge(found, valid, above=0.4, below=0.8)) == 0


def test_invalid_rows_are_ignored():
    valid = jnp.asarray([True, True, False])
    found = hardest_of(SCORES, negatives(valid))
    assert float(threshold_hinge(found, valid)) == pytest.approx(0.2 + 0.1 + 0.1, rel=1e-5)
    names = spread(found, valid)
    assert float(names["similarity/positive_p50"]) == pytest.approx(0.7)
    assert float(names["similarity/hardest_p50"]) == pytest.approx(0.4)


def test_scaled_scores_equal_scores_of_the_scaled_matrix():
    valid = jnp.ones(3, bool)
    half = hardest_of(SCORES, negatives(valid)).scaled(0.5)
    again = hardest_of(SCORES * 0.5, negatives(valid))
    np.testing.assert_allclose(half.positive, again.positive)
    np.testing.assert_allclose(half.negatives, again.negatives)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_quantiles_equal_those_of_numpy(count):
    x = np.random.default_rng(count).standard_normal(8).astype(np.float32)
    mask = np.arange(8) < count
    expected = np.quantile(x[:count], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quantiles(jnp.asarray(x), jnp.asarray(mask)), expected, rtol=1e-5)


def test_quantiles_without_entries_are_zero():
    assert not np.any(quantiles(jnp.ones(4), jnp.zeros(4, bool)))


def test_thresholds_are_fitted_once_when_due_and_in_order():
    def after(thresholds, above, below, due):
        found = {f"similarity/positive_p{q}": jnp.float32(above) for q in (25, 50, 75)}
        found |= {f"similarity/hardest_p{q}": jnp.float32(below) for q in (25, 50, 75)}
        return calibrated(thresholds, found, jnp.bool_(due))

    def values(thresholds):
        return tuple(float(thresholds[name]) for name in ("above", "below", "fitted"))

    start = {"above": jnp.float32(0.7), "below": jnp.float32(0.5), "fitted": jnp.bool_(False)}
    early = after(start, 0.4, 0.2, due=False)
    assert values(early) == values(start)
    overlapping = after(early, 0.2, 0.4, due=True)
    assert values(overlapping) == values(start)
    fitted = after(overlapping, 0.4, 0.2, due=True)
    assert values(fitted) == pytest.approx((0.4, 0.2, 1))
    assert values(after(fitted, 0.6, 0.1, due=True)) == values(fitted)
