"""A bank that is split over 8 devices: it is written and read as a whole one is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from layer_cases import normal, unit

from hmgr_jax.distributed.parallel import DATA, MappedAxis, make_mesh
from hmgr_jax.layers import bank as banks
from hmgr_jax.layers.bank import Bank, Reading

S, D, B = 48, 4, 16
MODALITIES = ("image", "text")
ROWS = P(DATA)
PARTS = Bank(dict.fromkeys(MODALITIES, ROWS), ROWS, ROWS, P(), ROWS)


def units(count, seed=0):
    return jnp.asarray(unit(np.asarray(normal(count, D, seed=seed))), jnp.float32)


def pairs(count, seed=0):
    return {m: units(count, seed + k) for k, m in enumerate(MODALITIES)}


def over_devices(function, into, out):
    """``function(*given, axis)``, jitted, mapped over 8 devices."""
    run = functools.partial(function, axis=MappedAxis())
    return jax.jit(
        jax.shard_map(run, mesh=make_mesh(8), in_specs=into, out_specs=out, check_vma=False)
    )


def write(bank, batch, group, valid, step, *, axis=None):
    return banks.write(bank, batch, group, valid, step, axis)


def written(size=S, split=False):
    """A ring of S slots after three batches of 24 pairs, padding among them."""
    bank = banks.empty_bank(MODALITIES, size, D)
    run = over_devices(write, (PARTS, P(), P(), P(), P()), PARTS) if split else jax.jit(write)
    for step in range(3):
        mask = (np.arange(24) + step) % 5 != 0
        group = jnp.arange(24, dtype=jnp.int32) // 2 + 100 * step
        bank = run(bank, pairs(24, 10 * step), group, jnp.asarray(mask), jnp.int32(step))
    return bank


@pytest.mark.parametrize("size", [S, 16], ids=["not yet full twice", "smaller than a batch"])
def test_a_split_bank_is_written_as_a_whole_one(size):
    jax.tree.map(np.testing.assert_array_equal, written(size, split=True), written(size))


def read(bank, x, group, temperature, *, top, axis=None):
    return banks.read(bank, x, "text", top=top, temperature=temperature, not_from=group, axis=axis)


def read_over_devices(top):
    into, out = (PARTS, ROWS, ROWS, P()), Reading(ROWS, ROWS, ROWS)
    return over_devices(functools.partial(read, top=top), into, out)


GROUPS = jnp.arange(B, dtype=jnp.int32)


@pytest.mark.parametrize("top", [1, 5, 12, 100])
def test_a_split_bank_is_read_as_a_whole_one(top):
    bank, x = written(), units(B, seed=90)
    expected = jax.jit(functools.partial(read, top=top))(bank, x, GROUPS, 0.3)
    found = read_over_devices(top)(bank, x, GROUPS, 0.3)
    np.testing.assert_array_equal(found.slots, expected.slots)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.content, expected.content, rtol=0, atol=1e-6)


def test_equal_pairs_are_read_in_the_order_of_their_slots():
    bank = written()
    same = {m: jnp.broadcast_to(x[:1], x.shape) for m, x in bank.vectors.items()}
    bank = bank.replace(vectors=same)
    found = read_over_devices(5)(bank, units(B, seed=90), GROUPS + 500, 0.3)
    np.testing.assert_array_equal(found.slots, np.tile(np.arange(5), (B, 1)))


def test_a_split_bank_that_is_empty_reads_zero():
    found = read_over_devices(3)(banks.empty_bank(MODALITIES, S, D), units(B), GROUPS, 0.3)
    assert not np.any(found.content)
    assert (np.asarray(found.slots) == banks.EMPTY).all()


def test_reads_of_a_split_bank_have_the_gradient_of_a_whole_one():
    bank, x, wanted = written(), units(B, seed=90), units(B, seed=91)

    def total(x, temperature, bank, group, wanted, *, axis=None):
        found = read(bank, x, group, temperature, top=5, axis=axis)
        error = jnp.sum((found.content - wanted) ** 2)
        return error if axis is None else axis.sum(error)

    def gradient(*given, axis=None):
        of = jax.grad(functools.partial(total, axis=axis), (0, 1))(*given)
        # All devices have the same total, so each has the gradient of 8 totals.
        return of if axis is None else (of[0] / 8, axis.mean(of[1]))

    given = x, jnp.float32(0.3), bank, GROUPS, wanted
    expected = jax.jit(gradient)(*given)
    found = over_devices(gradient, (ROWS, P(), PARTS, ROWS, ROWS), (ROWS, P()))(*given)
    for own, other in zip(found, expected, strict=True):
        assert np.any(other)
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)


def mark(bank, slots, valid, *, axis=None):
    return banks.mark_read(bank, slots, valid, axis)


def test_reads_of_a_split_bank_are_marked():
    slots = jnp.asarray([[0, 47], [6, banks.EMPTY], [13, 20]])
    valid = jnp.asarray([True, True, False])
    found = over_devices(mark, (PARTS, P(), P()), PARTS)(written(), slots, valid)
    np.testing.assert_array_equal(np.flatnonzero(found.read), [0, 6, 47])


def test_a_bank_of_given_pairs_lies_where_the_old_one_lay():
    old = written(split=True)
    batch = {m: np.asarray(x) for m, x in pairs(30, seed=50).items()}
    new = banks.stored(old, batch, np.arange(30))
    for own, other in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
        assert own.sharding == other.sharding
    empty = banks.empty_bank(MODALITIES, S, D)
    group, every = jnp.arange(30, dtype=jnp.int32), jnp.ones(30, bool)
    expected = jax.jit(write)(empty, batch, group, every, jnp.int32(3))
    jax.tree.map(np.testing.assert_array_equal, new, expected)
