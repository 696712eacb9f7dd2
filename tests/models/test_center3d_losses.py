"""The losses of center3d follow their formulas, for rows that count and on several devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hmgr_jax.distributed.parallel import DATA, MappedAxis, make_mesh
from hmgr_jax.models import center3d as losses
from hmgr_jax.models.base import LocalAxis

B, D, K = 8, 6, 4
AXIS = LocalAxis()
RNG = np.random.default_rng(0)
VECTORS = [jnp.asarray(RNG.standard_normal((B, D)), jnp.float32) for _ in range(3)]
CENTERS = jnp.asarray(RNG.standard_normal((K, D)), jnp.float32)
CLASSES = jnp.asarray([0, 1, 1, 2, 0, 1, 2, -1], jnp.int32)
WEIGHTS = jnp.asarray([1, 1, 1, 1, 1, 1, 0, 0], jnp.float32)
ONES = jnp.ones(B, jnp.float32)


def as64(x):
    return np.asarray(x, np.float64)


def test_a_centre_follows_the_vectors_of_its_class():
    """(2/3B) Σ (C - f) over the vectors of its class; a class without rows stays."""
    gradient = jax.grad(lambda c: losses.center_loss(VECTORS, c, CLASSES, WEIGHTS, AXIS))(CENTERS)
    rows, expected = np.flatnonzero(WEIGHTS), np.zeros((K, D))
    for x, i in itertools.product(VECTORS, rows):
        expected[CLASSES[i]] += 2 / (3 * len(rows)) * (as64(CENTERS)[CLASSES[i]] - as64(x)[i])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    assert not np.any(np.asarray(gradient)[3])


def test_the_center_loss_is_that_of_the_masked_distance_matrix():
    stacked = np.concatenate([as64(x) for x in VECTORS])
    far = ((stacked[:, None] - as64(CENTERS)[None]) ** 2).sum(-1)
    mask = np.tile(np.eye(K)[CLASSES] * as64(WEIGHTS)[:, None], (3, 1))
    found = losses.center_loss(VECTORS, CENTERS, CLASSES, WEIGHTS, AXIS)
    assert found == pytest.approx((far * mask).sum() / mask.sum(), rel=1e-6)


def test_pairwise_squares_of_three_are_three_times_their_variance():
    found = losses.pairwise_squares(VECTORS, WEIGHTS, AXIS)
    rows = np.stack([as64(x) for x in VECTORS])[:, np.asarray(WEIGHTS) > 0]
    assert found == pytest.approx(3 * ((rows - rows.mean(0)) ** 2).sum(0).mean(), rel=1e-6)


def test_scale_gradient_keeps_the_value():
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(losses.scale_gradient(x, 0.1) ** 2))(
        CENTERS
    )
    assert value == pytest.approx(float(jnp.sum(CENTERS**2)), rel=1e-6)
    np.testing.assert_allclose(gradient, 0.2 * CENTERS, rtol=1e-5)


def test_centres_move_as_in_wen():
    sums, counts = losses.class_sums(VECTORS, CLASSES, WEIGHTS, K, AXIS)
    np.testing.assert_array_equal(counts, [6, 9, 3, 0])
    found, expected = losses.move_centers(CENTERS, sums, counts), as64(CENTERS).copy()
    for j in range(K):
        own = [as64(x)[i] for x in VECTORS for i in range(B) if CLASSES[i] == j and WEIGHTS[i]]
        expected[j] -= 0.5 * sum((as64(CENTERS)[j] - f for f in own), np.zeros(D)) / (1 + len(own))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_relu_vectors_cannot_go_below_the_lower_bound():
    best = [jnp.maximum(CENTERS, 0.0)[jnp.maximum(CLASSES, 0)]] * 3
    least = losses.least_center_loss(CENTERS, CLASSES, WEIGHTS, AXIS)
    found = losses.center_loss(best, CENTERS, CLASSES, WEIGHTS, AXIS)
    assert found == pytest.approx(float(least), rel=1e-6)
    assert found < losses.center_loss([abs(x) for x in VECTORS], CENTERS, CLASSES, WEIGHTS, AXIS)


def test_cross_entropy_is_the_mean_negative_log_probability():
    logits = as64(VECTORS[0])[:, :K]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(chances[np.arange(6), np.asarray(CLASSES)[:6]]).mean()
    found = losses.cross_entropy(jnp.float32(logits), CLASSES, WEIGHTS, AXIS)
    assert found == pytest.approx(expected, rel=1e-5)


def test_four_devices_give_the_losses_of_one():
    def every(vectors, classes, weights, axis):
        sums, counts = losses.class_sums(vectors, classes, weights, K, axis)
        return (
            losses.center_loss(vectors, CENTERS, classes, weights, axis),
            losses.pairwise_squares(vectors, weights, axis),
            losses.cross_entropy(vectors[0][:, :K], classes, weights, axis),
            losses.move_centers(CENTERS, sums, counts),
        )

    mapped = jax.shard_map(
        lambda *given: every(*given, MappedAxis()),
        mesh=make_mesh(4),
        in_specs=(P(DATA), P(DATA), P(DATA)),
        out_specs=P(),
        check_vma=False,
    )
    found = jax.jit(mapped)(VECTORS, CLASSES, WEIGHTS)
    expected = every(VECTORS, CLASSES, WEIGHTS, AXIS)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
