"""The bank of training pairs: a ring that batches are written to, and what an item reads of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import as64, normal, softmax, unit

from hmgr_jax.layers import bank as banks
from hmgr_jax.layers.bank import EMPTY, Reading

S, D = 5, 4
MODALITIES = ("image", "text")


write = jax.jit(banks.write)
read = jax.jit(banks.read, static_argnames=("modality", "top"))


def units(count, seed=0):
    return unit(np.asarray(normal(count, D, seed=seed)))


def pairs(count, seed=0):
    return {m: units(count, seed + k) for k, m in enumerate(MODALITIES)}


def written(count, *, size=S, bank=None, valid=None, first=0, step=0):
    """A bank after a batch of ``count`` pairs, whose groups are numbered from ``first``."""
    bank = banks.empty_bank(MODALITIES, size, D) if bank is None else bank
    valid = np.ones(count, bool) if valid is None else np.asarray(valid)
    group = first + np.arange(count, dtype=np.int32)
    return write(bank, pairs(count, seed=first), group, valid, np.int32(step))


# --- writing --------------------------------------------------------------------------------------


def test_a_batch_is_written_in_the_order_of_its_rows():
    bank = written(3, step=7)
    for m, x in pairs(3).items():
        np.testing.assert_array_equal(bank.vectors[m][:3], x)
        assert not np.any(bank.vectors[m][3:])
    np.testing.assert_array_equal(bank.group, [0, 1, 2, EMPTY, EMPTY])
    np.testing.assert_array_equal(bank.step, [7, 7, 7, -1, -1])
    assert bank.head == 3


def test_a_full_ring_forgets_its_oldest_pairs():
    bank = written(4, bank=written(3), first=10, step=1)
    np.testing.assert_array_equal(bank.group, [12, 13, 2, 10, 11])
    np.testing.assert_array_equal(bank.step, [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(bank.vectors["text"][0], pairs(4, seed=10)["text"][2])
    assert bank.head == 2


def test_rows_of_padding_are_not_written():
    bank = written(4, valid=[True, False, True, False])
    np.testing.assert_array_equal(bank.group, [0, 2, EMPTY, EMPTY, EMPTY])
    np.testing.assert_array_equal(bank.vectors["image"][1], pairs(4)["image"][2])
    assert bank.head == 2


def test_a_batch_larger_than_the_ring_keeps_its_last_pairs():
    bank = written(8, bank=written(2), first=10)
    np.testing.assert_array_equal(np.sort(bank.group), [13, 14, 15, 16, 17])
    assert bank.head == 0  # after 2 + 8 pairs
    order = np.asarray(bank.group) - 10
    np.testing.assert_array_equal(bank.vectors["image"], pairs(8, seed=10)["image"][order])


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", MODALITIES)
def test_an_item_looks_up_its_own_modality_and_reads_the_other(modality):
    bank, x, top = written(S), units(3, seed=9), 2
    found = read(bank, x, modality, top=top, temperature=0.3)
    own, other = (as64(bank.vectors[m]) for m in sorted(MODALITIES, key=lambda m: m != modality))
    cosines = as64(x) @ own.T
    slots = np.argsort(-cosines, axis=1)[:, :top]
    weights = softmax(np.take_along_axis(cosines, slots, axis=1) / 0.3)
    np.testing.assert_array_equal(found.slots, slots)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-5)
    expected = np.einsum("nk,nkd->nd", weights, other[slots])
    np.testing.assert_allclose(found.content, expected, rtol=0, atol=1e-6)


def test_pairs_of_the_items_own_group_are_not_read():
    bank, x = written(S), pairs(S)["text"]
    nearest = read(bank, x, "text", top=1, temperature=0.1).slots[:, 0]
    np.testing.assert_array_equal(nearest, np.arange(S))  # each finds itself
    found = read(bank, x, "text", top=S, temperature=0.1, not_from=bank.group)
    assert (np.asarray(found.slots) != np.arange(S)[:, None]).all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-6)


def test_empty_slots_are_not_read():
    x = units(2, seed=9)
    full, part = written(2, size=2), written(2)
    expected, found = (read(b, x, "text", top=4, temperature=0.1) for b in (full, part))
    np.testing.assert_allclose(found.content, expected.content, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.weights[:, :2], expected.weights, rtol=1e-6)
    np.testing.assert_array_equal(found.weights[:, 2:], 0)
    np.testing.assert_array_equal(found.slots[:, 2:], EMPTY)


def test_an_empty_bank_reads_zero_with_a_finite_gradient():
    bank, x = banks.empty_bank(MODALITIES, S, D), units(2)

    def content(x, temperature):
        return read(bank, x, "text", top=3, temperature=temperature).content

    assert not np.any(content(x, 0.1))
    gradient = jax.grad(lambda *given: jnp.sum(content(*given)), (0, 1))(x, jnp.float32(0.1))
    assert all(np.isfinite(g).all() for g in gradient)


# --- the record of reads --------------------------------------------------------------------------


def test_reads_of_valid_items_are_marked():
    slots = jnp.asarray([[0, 2], [3, EMPTY], [1, 4]])
    bank = banks.mark_read(written(S), slots, jnp.asarray([True, True, False]))
    np.testing.assert_array_equal(bank.read, [True, False, True, True, False])


def test_a_slot_that_is_written_again_is_unread():
    full = written(S)
    read = dataclasses.replace(full, read=jnp.ones(S, bool))
    bank = written(2, bank=read, first=10)
    np.testing.assert_array_equal(bank.read, [False, False, True, True, True])


def test_the_report_of_a_reading_by_hand():
    weights = jnp.asarray([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    slots = jnp.asarray([[0, 1, EMPTY], [2, EMPTY, EMPTY]])
    before = jnp.asarray([[1.0, 0.0], [1.0, 0.0]])
    after = jnp.asarray([[0.6, 0.8], [1.0, 0.0]])
    found = banks.reading_report(Reading(before, weights, slots), before, after)
    np.testing.assert_allclose(found["entropy"], [np.log(2), 0], atol=1e-6)
    np.testing.assert_allclose(found["top1"], [0.5, 1], atol=1e-6)
    np.testing.assert_allclose(found["moved"], [0.4, 0], atol=1e-6)
