"""Center hinge equals the plain form, also for groups across devices and invalid rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hmgr_jax.distributed.parallel import DATA, MappedAxis, make_mesh
from hmgr_jax.losses.centers import center_hinge
from hmgr_jax.models.base import LocalAxis

SIZE, FEATURES = 8, 5
GROUPS = jnp.asarray([0, 1, 2, 0, 3, 1, 4, 0])
VALID = jnp.arange(SIZE) < 7
OPTIONS = [{}, {"margin": 0.5}]


def vectors(seed=3):
    x = np.random.default_rng(seed).standard_normal((2, SIZE, FEATURES))
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)


def plain(a, b, margin=0.2):
    """Group by group."""
    rows = {g: [i for i in range(SIZE) if GROUPS[i] == g and VALID[i]] for g in range(5)}
    centres = {}
    for group, members in rows.items():
        if members:
            total = sum(a[i] + b[i] for i in members)
            centres[group] = total / jnp.linalg.norm(total)
    loss = 0.0
    for group, members in rows.items():
        for z in (x[i] for i in members for x in (a, b)):
            # |z - c|² of unit vectors; on the sphere the gradient is the same.
            near = 2 - 2 * z @ centres[group]
            far = [2 - 2 * z @ c for g, c in centres.items() if g != group]
            other = jnp.min(jnp.stack(far))
            loss = loss + jnp.maximum(margin + near - other, 0)
    return loss


@pytest.mark.parametrize("options", OPTIONS)
def test_value_and_gradient_equal_the_plain_form(options):
    def found(a, b):
        return center_hinge(a, b, VALID, GROUPS, LocalAxis(), **options)

    expected, gradient = jax.value_and_grad(plain, (0, 1))(*vectors(), **options)
    value, own = jax.jit(jax.value_and_grad(found, (0, 1)))(*vectors())
    assert float(value) > 0
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for x, y in zip(own, gradient, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_groups_across_devices_equal_the_plain_form(options):
    """Each of four devices has two rows; the first group has members on three of them."""
    expected, gradient = jax.value_and_grad(plain, (0, 1))(*vectors(), **options)

    def device(a, b, valid, groups):
        def loss(a, b):
            return center_hinge(a, b, valid, groups, MappedAxis(), **options)

        found, own = jax.value_and_grad(loss, (0, 1))(a, b)
        return found, own[0] / 4, own[1] / 4

    rows = P(DATA)
    mapped = jax.shard_map(
        device, mesh=make_mesh(4), in_specs=(rows,) * 4, out_specs=(P(), rows, rows),
        check_vma=False,
    )  # fmt: skip
    found, *own = jax.jit(mapped)(*vectors(), VALID, GROUPS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for x, y in zip(own, gradient, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_batch_of_one_group_has_zero_loss():
    a, b = vectors()
    one = jnp.zeros(SIZE, jnp.int32)
    value, gradient = jax.value_and_grad(
        lambda x: center_hinge(x, b, VALID, one, LocalAxis())
    )(a)  # fmt: skip
    assert value == 0
    assert not np.any(gradient)


def test_gradient_at_the_centre_is_finite():
    a = jnp.eye(SIZE)
    groups = jnp.arange(SIZE)
    value, gradient = jax.value_and_grad(
        lambda x: center_hinge(x, a, jnp.ones(SIZE, bool), groups, LocalAxis())
    )(a)  # fmt: skip
    assert value == 0
    assert np.isfinite(gradient).all()
