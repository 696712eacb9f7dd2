"""The loss of means and variances by hand, and over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hmgr_jax.distributed.parallel import DATA, MappedAxis, make_mesh
from hmgr_jax.losses.moments import mean_variance
from hmgr_jax.models.base import LocalAxis

SCORES = jnp.asarray([1.0, 2.0, 3.0, 0.5, 1.5, 99.0])
MATCHING = jnp.asarray([True, True, True, False, False, True])
COUNTS = jnp.asarray([True] * 5 + [False])


def test_mean_variance_by_hand():
    # Matching: mean 2, variance 2/3; others: mean 1, variance 1/4; the means are 1 apart.
    loss, terms = mean_variance(SCORES, MATCHING, COUNTS, LocalAxis(), margin=1.5)
    np.testing.assert_allclose(loss, 2 / 3 + 1 / 4 + 0.35 * 0.5, rtol=1e-6)
    assert (terms["mean/matching"], terms["mean/other"]) == (2.0, 1.0)
    loss, _ = mean_variance(SCORES, MATCHING, COUNTS, LocalAxis(), margin=0.8)
    np.testing.assert_allclose(loss, 2 / 3 + 1 / 4, rtol=1e-6)


@pytest.mark.parametrize(("kind", "variance"), [(MATCHING, 2 / 3), (~MATCHING, 1 / 4)])
def test_a_batch_of_one_kind_has_no_hinge(kind, variance):
    loss, _ = mean_variance(SCORES, MATCHING, COUNTS & kind, LocalAxis(), margin=9.0)
    np.testing.assert_allclose(loss, variance, rtol=1e-6)


def test_no_pairs_give_zero():
    def loss(scores):
        return mean_variance(scores, MATCHING, ~COUNTS & ~MATCHING, LocalAxis())[0]

    assert loss(SCORES) == 0
    np.testing.assert_array_equal(jax.grad(loss)(SCORES), np.zeros(6))


def test_large_means_do_not_lose_the_variance():
    """The mean of squares less the square of the mean would be off by hundreds here."""
    scores = jnp.asarray(np.random.default_rng(0).normal(30000.0, 0.1, 256), jnp.float32)
    everything = jnp.ones(256, bool)
    loss, _ = mean_variance(scores, everything, everything, LocalAxis())
    np.testing.assert_allclose(loss, np.var(np.float64(scores)), rtol=1e-3)


def test_eight_devices_give_the_loss_and_gradient_of_one():
    rng = np.random.default_rng(1)
    scores = jnp.asarray(rng.standard_normal((16, 5)), jnp.float32)
    matching, counts = (jnp.asarray(rng.random((16, 5)) < p) for p in (0.3, 0.8))

    def program(axis):
        def loss(scale, scores, matching, counts):
            return mean_variance(scores * scale, matching, counts, axis, margin=3.0)[0]

        def both(*given):
            value, slope = jax.value_and_grad(loss)(*given)
            return value, axis.mean(slope)

        return both

    given = (jnp.float32(1.3), scores, matching, counts)
    rows = P(DATA)
    mapped = jax.shard_map(
        program(MappedAxis()),
        mesh=make_mesh(8),
        in_specs=(P(), rows, rows, rows),
        out_specs=P(),
        check_vma=False,
    )
    for found, expected in zip(jax.jit(mapped)(*given), program(LocalAxis())(*given), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
