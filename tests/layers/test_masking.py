"""Masked norms, softmax, means and maxima: values, and finite gradients at padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import mask_of, normal, softmax

from hmgr_jax.layers.masking import (
    l2n,
    length_mask,
    masked_max,
    masked_mean,
    masked_softmax,
    move_valid_first,
)

MASK = mask_of((3, 1, 0), 3)
X = normal(3, 3, 2)


def test_l2n_gives_unit_vectors():
    found = np.asarray(l2n(jnp.asarray([[3.0, 4.0], [0.0, 0.0]])))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)


def test_gradient_of_a_zero_vector_is_finite():
    gradient = jax.grad(lambda x: jnp.sum(l2n(x) * jnp.asarray([[1.0, 2.0]])))(jnp.zeros((1, 2)))
    assert np.isfinite(gradient).all()


def test_length_mask_is_true_up_to_the_length():
    np.testing.assert_array_equal(
        length_mask(jnp.asarray([0, 2, 3]), 3), [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    )


def test_masked_softmax_is_0_outside_the_mask():
    logits = jnp.asarray([[1.0, 2.0, 3.0], [5.0, 900.0, 900.0], [1.0, 2.0, 3.0]])
    found = np.asarray(masked_softmax(logits, MASK))
    np.testing.assert_allclose(found[0], softmax(np.array([1.0, 2.0, 3.0])), rtol=1e-6)
    np.testing.assert_array_equal(found[1:], [[1, 0, 0], [0, 0, 0]])


def test_masked_mean_and_max_ignore_padding():
    x, garbage = np.asarray(X), jnp.where(MASK[:, :, None], X, 1e6)
    np.testing.assert_allclose(
        masked_mean(garbage, MASK), [x[0].mean(0), x[1, 0], [0, 0]], rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(masked_max(garbage, MASK), [x[0].max(0), x[1, 0], [0, 0]])


@pytest.mark.parametrize("pool", [masked_mean, masked_max])
def test_an_infinite_feature_is_not_hidden(pool):
    found = np.asarray(pool(X.at[0, 1].set(jnp.inf).at[1, 0].set(jnp.nan), MASK))
    assert not np.isfinite(found[:2]).any()


@pytest.mark.parametrize("pool", [masked_mean, masked_max])
def test_gradients_stay_within_the_mask(pool):
    gradient = np.asarray(jax.grad(lambda x: jnp.sum(pool(x, MASK)))(X))
    assert np.isfinite(gradient).all()
    assert not gradient[~np.asarray(MASK)].any()
    np.testing.assert_allclose(gradient.sum(1), [[1, 1], [1, 1], [0, 0]], atol=1e-6)


def test_gradient_of_a_masked_softmax_is_finite():
    gradient = jax.grad(lambda x: masked_softmax(x, MASK)[:, 0].sum())(X[:, :, 0])
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[1:].any()


def test_the_gradient_of_a_maximum_goes_to_the_first_node_that_has_it():
    x = jnp.asarray([[[1.0, 5.0], [3.0, 5.0], [3.0, 9.0]]])
    mask = jnp.asarray([[True, True, False]])
    slope = jax.grad(lambda x: jnp.sum(masked_max(x, mask) * jnp.asarray([[1.0, 2.0]])))(x)
    np.testing.assert_array_equal(slope, [[[0, 2], [1, 0], [0, 0]]])


def test_valid_nodes_move_to_the_front_in_their_order():
    x = jnp.asarray([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])[:, :, None]
    mask = jnp.asarray([[False, True, False, True], [False, False, False, False]])
    found, valid = move_valid_first(x, mask)
    np.testing.assert_array_equal(found[:, :, 0], [[2, 4, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(valid, [[1, 1, 0, 0], [0, 0, 0, 0]])
    gradient = jax.grad(lambda x: jnp.sum(move_valid_first(x, mask)[0]))(x)
    np.testing.assert_array_equal(gradient[:, :, 0], mask)
