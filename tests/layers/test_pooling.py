"""From nodes to one unit vector: every pool against numpy, item by item."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import as64, linear, mask_of, normal, random_params, softmax, unit

from hmgr_jax.layers.dropout import Keys, dropout
from hmgr_jax.layers.pooling import POOLS, GlobalPool
from hmgr_jax.layers.recurrent import GRU, BiGRU

N, D = 4, 3
LENGTHS = (4, 2, 1)
MASK = mask_of(LENGTHS, N)
X = normal(3, N, D)
KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(3))
LEARNT = ("attention", "gru", "gpo")


def pooled(kind, params, x):
    """One item's valid nodes [n, D] to a vector, in float64."""
    if kind == "mean":
        return x.mean(0)
    if kind == "max":
        return x.max(0)
    if kind == "gru":
        states = GRU(D).apply({"params": params["gru"]}, jnp.asarray(x[None], jnp.float32))
        return np.asarray(states)[0, -1]
    if kind == "gpo":
        return np.sum(rank_weights(params["gpo"], len(x))[:, None] * -np.sort(-x, axis=0), axis=0)
    p = as64(params)
    local, guide = np.tanh(linear(p["local"], x)), np.tanh(linear(p["guide"], x.mean(0)))
    return softmax(linear(p["weight"], local * guide)[:, 0]) @ x


def rank_weights(params, count):
    """VSE∞'s weights of the largest to the smallest of n values."""
    place, pair = np.arange(count)[:, None], np.arange(16)[None, :]
    waves = np.zeros((1, count, 32))
    waves[0, :, 0::2] = np.sin(place / 10000 ** (pair / 16))
    waves[0, :, 1::2] = np.cos(place / 10000 ** (pair / 16))
    states = BiGRU(32).apply(
        {"params": params["gru"]}, jnp.asarray(waves, jnp.float32), jnp.asarray([count])
    )
    return softmax(10 * np.asarray(states)[0] @ np.asarray(params["weight"]["kernel"])[:, 0])


@pytest.fixture(scope="module", params=POOLS)
def pool(request):
    module = GlobalPool(request.param)
    params = random_params(module, X, MASK, None) if request.param in LEARNT else {}
    return request.param, module, params


def test_a_pool_equals_numpy_and_ignores_padding(pool):
    kind, module, params = pool
    garbage = jnp.where(MASK[:, :, None], X, 1e3)
    found = module.apply({"params": params}, garbage, MASK, None)
    x = np.asarray(X, np.float64)
    expected = [unit(pooled(kind, params, x[i, :n])) for i, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_only_attention_draws_random_numbers(pool):
    kind, module, params = pool
    plain = np.asarray(module.apply({"params": params}, X, MASK, None))
    dropped = np.asarray(module.apply({"params": params}, X, MASK, KEYS))
    assert np.array_equal(plain, dropped) == (kind != "attention")
    again = module.apply({"params": params}, X, MASK, KEYS)
    np.testing.assert_array_equal(dropped, again)


def test_attention_drops_both_branches():
    module = GlobalPool("attention", dropout=0.5, name="pool")
    params = random_params(module, X, MASK, None)
    found = module.apply({"params": params}, X, MASK, KEYS)

    p, x = as64((params, X))
    local = np.tanh(linear(p["local"], x))
    mean = np.stack([x[i, :n].mean(0) for i, n in enumerate(LENGTHS)])
    guide = np.tanh(linear(p["guide"], mean))
    local = local * np.asarray(dropout(jnp.ones(local.shape), 0.5, KEYS, "pool/local"))
    guide = guide * np.asarray(dropout(jnp.ones(guide.shape), 0.5, KEYS, "pool/guide"))
    logits = linear(p["weight"], local * guide[:, None])[..., 0]
    expected = [softmax(logits[i, :n]) @ x[i, :n] for i, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(found, [unit(v) for v in expected], rtol=0, atol=1e-6)


def test_masked_nodes_between_valid_ones_are_ignored(pool):
    kind, module, params = pool
    holed = jnp.asarray([[True, False, True, True]])
    found = module.apply({"params": params}, X[:1], holed, None)
    x = np.asarray(X, np.float64)[0]
    expected = pooled(kind, params, x[[0, 2, 3]])  # for a GRU too, a hole is no step
    np.testing.assert_allclose(found[0], unit(expected), rtol=0, atol=1e-6)


def test_an_unknown_pool_raises():
    with pytest.raises(ValueError, match="median"):
        jax.eval_shape(lambda: GlobalPool("median").init(jax.random.key(0), X, MASK, None))
