"""Contrastive losses by hand, and their independence of padded rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.losses.contrastive import contrastive_hard, infonce
from hmgr_jax.losses.triplet import negatives

SCORES = jnp.asarray([[0.9, 0.8, 0.1], [0.2, 0.5, 0.35], [0.6, 0.7, 0.6]])
ALL = jnp.ones(3, bool)


def test_contrastive_by_hand():
    found = contrastive_hard(SCORES, negatives(ALL), ALL, margin=0.3)
    # Positives lack 0.1, 0.5, 0.4; over rows 0.8, 0.35, 0.7 and over columns 0.6, 0.8, 0.35.
    np.testing.assert_allclose(found, 1.0 + (0.5 + 0.05 + 0.4) + (0.3 + 0.5 + 0.05), rtol=1e-6)
    groups = jnp.asarray([4, 9, 4])  # left are 0.8 | 0.35 | 0.7 and 0.2 | 0.8 | 0.35
    found = contrastive_hard(SCORES, negatives(ALL, groups), ALL, margin=0.3)
    np.testing.assert_allclose(found, 1.0 + (0.5 + 0.05 + 0.4) + (0.0 + 0.5 + 0.05), rtol=1e-6)


def test_infonce_by_hand():
    found = infonce(SCORES, negatives(ALL), ALL, temperature=0.5)
    e = np.exp(np.asarray(SCORES, np.float64) / 0.5)
    expected = -np.log(np.diagonal(e) / e.sum(1)) - np.log(np.diagonal(e) / e.sum(0))
    np.testing.assert_allclose(found, expected.sum(), rtol=1e-5)


def test_infonce_learns_its_temperature():
    """A traced temperature gives the value of a float, and a gradient, with padded rows too."""
    valid = jnp.asarray([True, True, True, False])
    padded = jnp.full((4, 4), 50.0).at[:3, :3].set(SCORES)

    def loss(temperature):
        return infonce(padded, negatives(valid), valid, temperature=temperature)

    value, slope = jax.jit(jax.value_and_grad(loss))(jnp.float32(0.5))
    np.testing.assert_allclose(value, loss(0.5), rtol=1e-6)
    np.testing.assert_allclose(slope, (loss(0.501) - loss(0.499)) / 0.002, rtol=1e-2)
    assert np.isfinite(jax.grad(loss)(jnp.float32(0.01)))


def test_infonce_leaves_captions_of_the_same_picture_out():
    groups = jnp.asarray([4, 9, 4])
    found = infonce(SCORES, negatives(ALL, groups), ALL, temperature=0.5)
    e = np.exp(np.asarray(SCORES, np.float64) / 0.5)
    e[0, 2] = e[2, 0] = 0
    expected = -np.log(np.diagonal(e) / e.sum(1)) - np.log(np.diagonal(e) / e.sum(0))
    np.testing.assert_allclose(found, expected.sum(), rtol=1e-5)


LOSSES = {
    "contrastive_hard": lambda s, n, v: contrastive_hard(s, n, v, margin=0.3),
    "infonce": lambda s, n, v: infonce(s, n, v, temperature=0.05),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_padded_rows_do_not_count(loss):
    valid = jnp.asarray([True, True, True, False, False])
    padded = jnp.full((5, 5), 50.0).at[:3, :3].set(SCORES)
    value, gradient = jax.value_and_grad(lambda s: loss(s, negatives(valid), valid))(padded)
    np.testing.assert_allclose(value, loss(SCORES, negatives(ALL), ALL), rtol=1e-6)
    gradient = np.asarray(gradient)
    assert np.isfinite(gradient).all()
    assert not gradient[3:].any()
    assert not gradient[:, 3:].any()
    assert gradient[:3, :3].any()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_batch_of_one_picture_has_no_negatives(loss):
    groups = jnp.zeros(3, jnp.int32)
    value = loss(SCORES, negatives(ALL, groups), ALL)
    expected = 0.0 if loss is LOSSES["infonce"] else 1.0
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
