"""The GRU against PyTorch's equations written out in numpy, one sequence at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import as64, linear, normal, random_params

from hmgr_jax.layers.recurrent import GRU, BiGRU, flip

D, H = 3, 4
LENGTHS = (5, 1, 3, 2)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_states(params, x):
    """States of one sequence [L, D], float64: the reset gate acts after the hidden product."""
    h, states = np.zeros(H), []
    for x_r, x_z, x_n in (np.split(row, 3) for row in linear(params["inputs"], x)):
        h_r, h_z, h_n = np.split(h @ params["hidden_kernel"], 3)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = np.tanh(x_n + r * (h_n + params["hidden_bias"]))
        h = (1 - z) * n + z * h
        states.append(h)
    return np.array(states)


@pytest.fixture(scope="module")
def encoder():
    x = normal(4, 5, D)
    module = BiGRU(H)
    params = random_params(module, x, jnp.asarray(LENGTHS))
    return jax.jit(lambda x, lengths: module.apply({"params": params}, x, lengths)), params, x


def test_bigru_averages_directions_and_is_zero_at_padding(encoder):
    run, params, x = encoder
    found = run(x, jnp.asarray(LENGTHS))
    p, x = as64((params, x))
    expected = np.zeros((4, 5, H))
    for i, n in enumerate(LENGTHS):
        forward = gru_states(p["forward"], x[i, :n])
        # The backward direction starts at the last valid word.
        backward = gru_states(p["backward"], x[i, :n][::-1])[::-1]
        expected[i, :n] = (forward + backward) / 2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    for i, n in enumerate(LENGTHS):
        assert not np.asarray(found)[i, n:].any()


def test_states_do_not_depend_on_padding(encoder):
    run, _, x = encoder
    lengths = jnp.asarray(LENGTHS)
    found = np.asarray(run(x, lengths))
    place = jnp.arange(5)[None, :, None]
    garbage = jnp.where(place < lengths[:, None, None], x, 1e3)
    np.testing.assert_array_equal(run(garbage, lengths), found)
    longer = run(jnp.pad(garbage, ((0, 0), (0, 4), (0, 0)), constant_values=7.0), lengths)
    np.testing.assert_allclose(longer[:, :5], found, rtol=0, atol=1e-6)
    assert not np.asarray(longer[:, 5:]).any()


def test_flip_reverses_only_the_valid_part():
    x = jnp.arange(8, dtype=jnp.float32).reshape(2, 4, 1)
    flipped = np.asarray(flip(x, jnp.asarray([3, 1])))[..., 0]
    np.testing.assert_array_equal(flipped, [[2, 1, 0, 3], [4, 5, 6, 7]])


def test_parameters_start_uniform_and_without_redundant_biases():
    module = GRU(16)
    params = jax.jit(module.init)(jax.random.key(0), normal(1, 2, 9))["params"]
    assert sum(p.size for p in jax.tree.leaves(params)) == 3 * 16 * (9 + 16) + 3 * 16 + 16
    for leaf in jax.tree.leaves(params):
        assert 0.12 < np.abs(leaf).max() <= 0.25  # 1 / sqrt(16)
