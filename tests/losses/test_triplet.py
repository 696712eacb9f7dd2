"""The triplet ranking loss by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hmgr_jax.distributed.parallel import DATA, MappedAxis, make_mesh
from hmgr_jax.losses.triplet import constant_triplet, negatives, triplet, triplet_of_vectors
from hmgr_jax.models.base import LocalAxis

# Rows are images, columns captions; positives on the diagonal; the margin is 0.2.
SCORES = jnp.asarray([[0.9, 0.8, 0.1], [0.2, 0.5, 0.35], [0.6, 0.7, 0.6]])
# Over the rows:    0.1, 0 | 0, 0.05 | 0.2, 0.3     hardest 0.1 + 0.05 + 0.3
# Over the columns: 0, 0 | 0.5, 0.4 | 0, 0          hardest 0   + 0.5 + 0
HARDEST, SUM = 0.95, 1.55
ALL = jnp.ones(3, bool)


def test_hardest_and_sum_by_hand():
    pairs = negatives(ALL)
    np.testing.assert_allclose(triplet(SCORES, pairs), HARDEST, rtol=1e-6)
    np.testing.assert_allclose(triplet(SCORES, pairs, hard=False), SUM, rtol=1e-6)
    # Without a margin only column 1 is violated, by 0.3 and 0.2, and row 2 by 0.1.
    np.testing.assert_allclose(triplet(SCORES, pairs, margin=0.0), 0.4, rtol=1e-6)


def test_hard_may_be_traced():
    loss = jax.jit(lambda hard: triplet(SCORES, negatives(ALL), hard=hard))
    np.testing.assert_allclose(loss(jnp.asarray(True)), HARDEST, rtol=1e-6)
    np.testing.assert_allclose(loss(jnp.asarray(False)), SUM, rtol=1e-6)


@pytest.mark.parametrize("size", [2, 5, 128])
def test_constant_scores_cost_two_margins_a_row(size):
    pairs = negatives(jnp.ones(size, bool))
    found = triplet(jnp.full((size, size), 0.7), pairs)
    np.testing.assert_allclose(found, 2 * 0.2 * size, rtol=1e-5)


def test_rows_of_one_group_are_no_negatives():
    groups = jnp.asarray([4, 9, 4])
    np.testing.assert_array_equal(negatives(ALL, groups), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    # Left are rows 0.1 | 0, 0.05 | 0.3 and columns 0 | 0.5, 0.4 | 0.
    found = triplet(SCORES, negatives(ALL, groups))
    np.testing.assert_allclose(found, 0.1 + 0.05 + 0.3 + 0.5, rtol=1e-6)
    found = triplet(SCORES, negatives(ALL, groups), hard=False)
    np.testing.assert_allclose(found, 0.1 + 0.05 + 0.3 + 0.5 + 0.4, rtol=1e-6)


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("groups", [None, jnp.asarray([0, 1, 2, 0, 1])])
def test_invalid_rows_do_not_count(hard, groups):
    valid = jnp.asarray([True, True, True, False, False])
    padded = jnp.full((5, 5), 50.0).at[:3, :3].set(SCORES)
    found = triplet(padded, negatives(valid, groups), hard=hard)
    np.testing.assert_allclose(found, HARDEST if hard else SUM, rtol=1e-6)


def test_scores_beyond_the_margin_cost_nothing():
    scores = jnp.eye(4)
    value, gradient = jax.value_and_grad(triplet)(scores, negatives(jnp.ones(4, bool)))
    assert value == 0
    assert not np.asarray(gradient).any()


def test_gradient_by_hand():
    pairs = negatives(ALL)
    # Every violated pair pushes its score up and its row's (or column's) positive down.
    found = np.asarray(jax.grad(triplet)(SCORES, pairs))
    of_rows, of_columns = [[-1, 1, 0], [0, -1, 1], [0, 1, -1]], [[0, 1, 0], [0, -1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(found, np.add(of_rows, of_columns))
    found = jax.grad(lambda s: triplet(s, pairs, hard=False))(SCORES)
    of_rows, of_columns = [[-1, 1, 0], [0, -1, 1], [1, 1, -2]], [[0, 1, 0], [0, -2, 0], [0, 1, 0]]
    np.testing.assert_array_equal(found, np.add(of_rows, of_columns))


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("groups", [None, [0, 1, 1, 2, 3, 3, 4, 5]])
@pytest.mark.parametrize("devices", [1, 4])
def test_triplet_of_vectors_equals_triplet_of_the_matrix(hard, groups, devices):
    rng = np.random.default_rng(4)
    a, b = (jnp.asarray(rng.standard_normal((8, 3)), jnp.float32) for _ in range(2))
    valid, groups = jnp.arange(8) < 7, None if groups is None else jnp.asarray(groups)

    def of_matrix(a, b):
        scores = jnp.einsum("ad,bd->ab", a, b)
        return triplet(scores, negatives(valid, groups), hard=hard)

    def of_rows(axis, a, b, valid, groups):
        return triplet_of_vectors(a, b, valid, groups, axis, hard=hard)

    def device(*rows):
        axis = LocalAxis() if devices == 1 else MappedAxis()
        value, gradient = jax.value_and_grad(lambda a, b: of_rows(axis, a, b, *rows[2:]), (0, 1))(
            *rows[:2]
        )
        # The step's rule is the mean over devices of what they say of shared parameters.
        return value, [x / devices for x in gradient]

    if devices > 1:
        device = jax.jit(
            jax.shard_map(
                device,
                mesh=make_mesh(devices),
                in_specs=P(DATA),
                out_specs=(P(), P(DATA)),
                check_vma=False,
            )
        )
    value, gradient = device(a, b, valid, groups)
    expected, expected_gradient = jax.value_and_grad(of_matrix, (0, 1))(a, b)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for x, y in zip(gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("groups", [None, jnp.asarray([0, 1, 0, 2, 2])])
def test_the_plateau_is_the_loss_of_equal_scores(hard, groups):
    valid = jnp.asarray([True, True, True, True, False])
    expected = triplet(jnp.full((5, 5), 0.3), negatives(valid, groups), margin=0.1, hard=hard)
    found = constant_triplet(valid, groups, LocalAxis(), margin=0.1, hard=hard)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
