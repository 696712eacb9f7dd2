"""Contrastive losses by hand, and their independence of padded rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hmgr_jax.distributed.parallel import DATA, MappedAxis, make_mesh
from hmgr_jax.losses.contrastive import (
    contrastive_hard,
    infonce,
    infonce_of_vectors,
    sigmoid_of_vectors,
)
from hmgr_jax.losses.triplet import negatives
from hmgr_jax.models.base import LocalAxis

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
    np.testing.assert_allclose(found, expected.mean() / 2, rtol=1e-5)


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
    np.testing.assert_allclose(found, expected.mean() / 2, rtol=1e-5)


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


@pytest.mark.parametrize("groups", [None, [0, 1, 1, 2, 3, 3, 4, 5]], ids=["all", "groups"])
@pytest.mark.parametrize("devices", [1, 4])
def test_infonce_of_vectors_equals_infonce_of_the_matrix(groups, devices):
    """The last row is padding."""
    rng = np.random.default_rng(4)
    a, b = (jnp.asarray(rng.standard_normal((8, 3)), jnp.float32) for _ in range(2))
    valid, groups = jnp.arange(8) < 7, None if groups is None else jnp.asarray(groups)
    temperature = jnp.float32(0.7)

    def of_matrix(a, b, temperature):
        scores = jnp.einsum("ad,bd->ab", a, b)
        return infonce(scores, negatives(valid, groups), valid, temperature=temperature)

    def device(temperature, a, b, valid, groups):
        axis = LocalAxis() if devices == 1 else MappedAxis()

        def loss(a, b, temperature):
            return infonce_of_vectors(a, b, valid, groups, axis, temperature=temperature)

        value, (*rows, shared) = jax.value_and_grad(loss, (0, 1, 2))(a, b, temperature)
        # The step takes the mean of the gradients over devices.
        return value, [x / devices for x in rows], axis.mean(shared)

    if devices > 1:
        device = jax.jit(
            jax.shard_map(
                device,
                mesh=make_mesh(devices),
                in_specs=(P(), P(DATA), P(DATA), P(DATA), P(DATA)),
                out_specs=(P(), P(DATA), P()),
                check_vma=False,
            )
        )
    value, rows, shared = device(temperature, a, b, valid, groups)
    expected, gradient = jax.value_and_grad(of_matrix, (0, 1, 2))(a, b, temperature)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for x, y in zip((*rows, shared), gradient, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_the_sigmoid_loss_by_hand():
    """Padded rows, and two captions of the same picture, do not count."""
    valid, groups = jnp.asarray([True, True, True, False]), jnp.asarray([4, 9, 4, 4])
    b = jnp.full((4, 3), 50.0).at[:3].set(SCORES.T)
    shift = {"scale": jnp.float32(2.0), "bias": jnp.float32(-1.0)}
    found = sigmoid_of_vectors(jnp.eye(4, 3), b, valid, groups, LocalAxis(), **shift)
    x = 2 * np.asarray(SCORES, np.float64) - 1
    each = np.log1p(np.exp(np.where(np.eye(3, dtype=bool), -x, x)))
    each[0, 2] = each[2, 0] = 0
    np.testing.assert_allclose(found, each.sum() / 3, rtol=1e-6)
