"""The memory's closed-form write against a loop, and its reads against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import as64, linear, normal, random_params, softmax, unit

from hmgr_jax.layers.memory import MemoryAccess, initial_slots, write, write_shares

N, S, D = 40, 6, 5
BOTH = (True, True)


def instances(n=N, seed=0):
    """Gates, addresses and contents of n instances of two modalities."""
    rng = np.random.default_rng(seed)
    gate = softmax(2 * rng.standard_normal((n, 3)))
    addresses = tuple(softmax(2 * rng.standard_normal((n, S))) for _ in range(2))
    contents = tuple(np.tanh(2 * rng.standard_normal((n, D))) for _ in range(2))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (gate, addresses, contents))


def write_all(slots, gate, addresses, contents, valid, rate=0.1, rule="slotwise", streams=BOTH):
    keep, weights = write_shares(gate, addresses, valid, rate, rule, streams)
    return write(slots, keep, weights, contents)


def one_after_another(slots, gate, addresses, contents, valid, rate, rule, streams):
    """The write rules, one instance at a time, in float64."""
    m, gate, (a_v, a_t), (c_v, c_t) = as64((slots, gate, addresses, contents))
    for i in np.flatnonzero(valid):
        if rule == "slotwise":
            w_v, w_t = rate * gate[i, 1] * a_v[i], rate * gate[i, 2] * a_t[i]
        else:
            w_v, w_t = gate[i, 1] * a_v[i], gate[i, 2] * a_t[i]
        w_v, w_t = w_v * streams[0], w_t * streams[1]
        keep = 1 - w_v - w_t if rule == "slotwise" else np.full(S, gate[i, 0])
        m = keep[:, None] * m + np.outer(w_v, c_v[i]) + np.outer(w_t, c_t[i])
    return m


@pytest.mark.parametrize("streams", [BOTH, (True, False), (False, True)])
@pytest.mark.parametrize(("rule", "rate"), [("slotwise", 0.1), ("slotwise", 0.9), ("hme", 0.1)])
def test_closed_form_is_the_sequence_of_writes(rule, rate, streams):
    slots = initial_slots(jax.random.key(0), 1, S, D)[0]
    valid = jnp.arange(N) % 7 != 3
    given = (slots, *instances(), valid, rate, rule, streams)
    np.testing.assert_allclose(write_all(*given), one_after_another(*given), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", ["slotwise", "hme"])
def test_invalid_rows_write_nothing(rule):
    slots = normal(S, D)
    gate, addresses, contents = instances()
    valid = jnp.arange(N) < 3
    garbage = tuple(jnp.where(valid[:, None], c, 1e6) for c in contents)
    found = write_all(slots, gate, addresses, garbage, valid, rule=rule)
    first = jax.tree.map(lambda x: x[:3], (gate, addresses, contents))
    expected = write_all(slots, *first, valid[:3], rule=rule)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    untouched = write_all(slots, gate, addresses, contents, jnp.zeros(N, bool), rule=rule)
    np.testing.assert_array_equal(untouched, slots)


def test_slots_stay_bounded():
    slots = initial_slots(jax.random.key(1), 1, S, D)[0]
    for seed in range(20):
        slots = write_all(slots, *instances(200, seed), jnp.ones(200, bool), rate=0.9)
    assert np.abs(slots).max() <= 1.0
    assert np.abs(slots).max() > 0.3  # it has been written


def test_a_gate_of_zero_replaces_the_slot():
    gate = jnp.asarray([[0.0, 1.0, 0.0]] * 3, jnp.float32)
    at_first = jnp.asarray([[1.0, 0, 0, 0, 0, 0]] * 3, jnp.float32)
    contents = (normal(3, D), normal(3, D, seed=1))
    slots = normal(S, D, seed=2)
    given = (gate, (at_first, at_first), contents, jnp.ones(3, bool))
    np.testing.assert_allclose(
        write_all(slots, *given, rate=1.0), np.r_[contents[0][2:], slots[1:]], rtol=0, atol=1e-6
    )
    assert np.isfinite(write_all(slots, *given, rule="hme")).all()


def test_initial_slots_are_distinct_unit_rows():
    slots = np.asarray(initial_slots(jax.random.key(3), 2, 32, 16))
    assert slots.shape == (2, 32, 16)
    np.testing.assert_allclose(np.linalg.norm(slots, axis=-1), 1.0, atol=1e-6)
    rows = slots.reshape(64, 16)
    assert np.abs(rows @ rows.T - np.eye(64)).max() < 0.99


def new_access(**options):
    module = MemoryAccess(D, S, ("image", "text"), key_features=3, **options)
    return module, random_params(module, normal(S, D), method="touch")


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_read_equals_its_equations(hops):
    module, params = new_access(hops=hops)
    slots, x = normal(S, D, seed=4), jnp.asarray(unit(normal(7, D, seed=5)))
    found = module.apply({"params": params}, slots, x, "text", method="read")
    p, m, h = as64((params, slots, x))
    for _ in range(hops):
        logits = linear(p["query_text"], h) @ linear(p["key"], m).T / np.sqrt(3)
        address = softmax(logits)
        read = address @ m
        both = np.concatenate([h, read], axis=1)
        g = 1 / (1 + np.exp(-linear(p["hop_gate_text"], both)))
        h = g * h + (1 - g) * np.tanh(linear(p["hop_content_text"], both))
    for got, expected in zip(found, (unit(h), read, address), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_contents_addresses_and_gates_equal_their_equations():
    module, params = new_access()
    x, y, read = normal(7, D, seed=6), normal(7, D, seed=7), normal(7, D, seed=8)
    nowhere = jnp.zeros((7, S))
    given = {"params": params}
    content, address = module.apply(given, x, read, nowhere, "image", method="content")
    gate = module.apply(given, x, y, read, method="gate")
    p, x, y, read = as64((params, x, y, read))
    both = np.concatenate([x, read], axis=1)
    close = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(content, np.tanh(linear(p["write_content_image"], both)), **close)
    np.testing.assert_allclose(address, softmax(linear(p["write_place_image"], both)), **close)
    three = np.concatenate([x, y, read], axis=1)
    np.testing.assert_allclose(gate, softmax(linear(p["write_gate"], three)), **close)


def test_content_addressing_writes_where_it_read():
    module, params = new_access(write_address="content")
    assert not [name for name in params if name.startswith("write_place")]
    x = normal(4, D)
    _, read, at = module.apply({"params": params}, normal(S, D), x, "image", method="read")
    _, address = module.apply({"params": params}, x, read, at, "image", method="content")
    np.testing.assert_array_equal(address, at)


def test_a_new_memory_changes_little():
    module = MemoryAccess(16, S, ("image", "text"), key_features=4)
    slots = initial_slots(jax.random.key(0), 1, S, 16)[0]
    params = jax.jit(lambda key: module.init(key, slots, method="touch"))(jax.random.key(1))
    x = jnp.asarray(unit(normal(20, 16)))
    hopped, _, _ = module.apply(params, slots, x, "image", method="read")
    assert np.sum(np.asarray(hopped * x), axis=1).min() > 0.8


def test_a_new_memory_is_addressed_only_with_a_gain():
    """At gain 1 unit vectors read and write all slots uniformly."""
    features, slots = 256, 128
    memory = initial_slots(jax.random.key(0), 1, slots, features)[0]
    x = jnp.asarray(unit(normal(50, features)))

    def entropies(gain):
        module = MemoryAccess(features, slots, ("image", "text"), key_features=256, gain=gain)
        params = jax.jit(lambda key: module.init(key, memory, method="touch"))(jax.random.key(1))
        _, read, at = module.apply(params, memory, x, "image", method="read")
        _, place = module.apply(params, x, read, at, "image", method="content")
        return [float(-jnp.mean(jnp.sum(a * jnp.log(a), axis=1))) for a in (at, place)]

    np.testing.assert_allclose(entropies(1.0), np.log(slots), atol=0.01)
    assert max(entropies(features**0.5)) < np.log(slots) - 0.3
