"""The caption encoder: masks, <unk> in training, and independence of padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import as64, linear, random_params

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.recurrent import BiGRU
from hmgr_jax.layers.words import UNKNOWN, WordEncoder

WORDS, F, D = 20, 5, 4
LENGTHS = jnp.asarray([6, 4, 2])
TOKENS = jnp.asarray([[1, 7, 8, 9, 10, 2], [1, 11, 12, 2, 0, 0], [1, 2, 0, 0, 0, 0]])
KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(3))


@pytest.fixture(scope="module")
def params():
    return random_params(WordEncoder(WORDS, F, D), TOKENS, LENGTHS, None)


def encode(params, tokens, lengths=LENGTHS, keys=None, **rates):
    module = WordEncoder(WORDS, F, D, **rates)
    return jax.jit(module.apply)({"params": params}, tokens, lengths, keys)


def test_states_are_those_of_the_gru(params):
    states, mask = encode(params, TOKENS)
    np.testing.assert_array_equal(mask, np.arange(6)[None] < np.asarray(LENGTHS)[:, None])
    vectors = params["vectors"][TOKENS]
    expected = BiGRU(D).apply({"params": params["gru"]}, vectors, LENGTHS)
    np.testing.assert_allclose(states, expected, rtol=0, atol=1e-6)


def test_states_do_not_depend_on_padding(params):
    states, mask = encode(params, TOKENS)
    garbage = jnp.where(mask, TOKENS, 17)
    np.testing.assert_array_equal(encode(params, garbage)[0], states)
    longer, _ = encode(params, jnp.pad(TOKENS, ((0, 0), (0, 3))))
    np.testing.assert_allclose(longer[:, :6], states, rtol=0, atol=1e-6)
    assert not np.asarray(longer[:, 6:]).any()


def test_without_recurrence_states_are_a_linear_map_of_the_vectors():
    module = WordEncoder(WORDS, F, D, recurrent=False)
    params = random_params(module, TOKENS, LENGTHS, None)
    states, mask = module.apply({"params": params}, TOKENS, LENGTHS, None)
    p = as64(params)
    expected = linear(p["project"], p["vectors"][np.asarray(TOKENS)])
    np.testing.assert_allclose(states, np.where(mask[:, :, None], expected, 0), atol=1e-6)


def test_dropped_words_become_unknown_except_start_and_end(params):
    almost_all = encode(params, TOKENS, keys=KEYS, word_dropout=65535 / 65536)[0]
    inner = (TOKENS > 2) & (jnp.arange(6)[None] < LENGTHS[:, None])
    expected = encode(params, jnp.where(inner, UNKNOWN, TOKENS))[0]
    np.testing.assert_allclose(almost_all, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["word_dropout", "vector_dropout"])
def test_dropout_acts_in_training_only(params, kind):
    plain = np.asarray(encode(params, TOKENS)[0])
    np.testing.assert_array_equal(encode(params, TOKENS, **{kind: 0.5})[0], plain)
    assert not np.array_equal(encode(params, TOKENS, keys=KEYS, **{kind: 0.5})[0], plain)


def test_word_vectors_start_small_and_uniform():
    given = (TOKENS, LENGTHS, None)
    params = jax.jit(lambda key: WordEncoder(WORDS, 50, D).init(key, *given))(jax.random.key(0))
    vectors = np.asarray(params["params"]["vectors"])
    assert vectors.shape == (WORDS, 50)
    assert 0.095 < np.abs(vectors).max() <= 0.1
