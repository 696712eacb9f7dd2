"""BERT against numpy; its states do not depend on padding or other items."""

from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import as64, linear, mask_of, normal, random_params, softmax

from hmgr_jax.layers.bert import Bert, Embeddings, Encoder, Sizes
from hmgr_jax.layers.dropout import Keys

SIZES = Sizes(20, width=8, layers=2, heads=2, intermediate=12, positions=9)
LENGTHS = [6, 4, 1]
IDS = jnp.asarray([[1, 7, 8, 9, 10, 2], [1, 11, 12, 2, 0, 0], [1, 0, 0, 0, 0, 0]])
MASK = mask_of(LENGTHS, 6)
KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(3))


@pytest.fixture(scope="module")
def params():
    return random_params(Bert(SIZES), IDS, MASK)


@jax.jit
def states(params, ids, mask, keys=None):
    return Bert(SIZES).apply({"params": params}, ids, mask, keys)


def norm(params, x):
    x = x - x.mean(axis=-1, keepdims=True)
    return (
        x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-12) * params["scale"]
        + (params["bias"])
    )


def layer(params, x):
    """A layer on one item without padding, head by head."""
    q, k, v = (linear(params[name], x) for name in ("query", "key", "value"))
    seen = []
    for head in np.split(np.arange(SIZES.width), SIZES.heads):
        weights = softmax(q[:, head] @ k[:, head].T / np.sqrt(len(head)))
        seen.append(weights @ v[:, head])
    x = norm(params["attention_norm"], x + linear(params["attention_out"], np.hstack(seen)))
    hidden = linear(params["hidden"], x)
    hidden = hidden * 0.5 * (1 + np.vectorize(erf)(hidden / np.sqrt(2)))
    return norm(params["norm"], x + linear(params["out"], hidden))


def test_states_are_those_of_the_paper(params):
    found, p = np.asarray(states(params, IDS, MASK)), as64(params)
    for row, length in enumerate(LENGTHS):
        tables, ids = p["embeddings"], np.asarray(IDS[row, :length])
        x = tables["words"][ids] + tables["positions"][:length] + tables["segments"][0]
        x = norm(tables["norm"], x)
        for number in range(SIZES.layers):
            x = layer(p["encoder"][f"layer{number}"], x)
        np.testing.assert_allclose(found[row, :length], x, rtol=0, atol=2e-5)
        assert not found[row, length:].any()


def test_states_do_not_depend_on_padding_or_other_items(params):
    found = np.asarray(states(params, IDS, MASK))
    garbage = jnp.where(MASK, IDS, 17)
    np.testing.assert_array_equal(states(params, garbage, MASK), found)
    longer = states(params, jnp.pad(IDS, ((0, 0), (0, 3))), mask_of(LENGTHS, 9))
    np.testing.assert_allclose(longer[:, :6], found, rtol=0, atol=1e-5)
    alone = states(params, IDS[1:2], MASK[1:2])
    np.testing.assert_allclose(alone[0], found[1], rtol=0, atol=1e-5)


def test_states_depend_on_the_order_of_words(params):
    swapped = IDS[:, jnp.asarray([0, 2, 1, 3, 4, 5])]

    def moved(params):
        change = np.asarray(states(params, swapped, MASK) - states(params, IDS, MASK))
        return np.abs(change[0, 3:]).max()  # of the words that stayed where they were

    places = params["embeddings"]["positions"]
    nowhere = params | {"embeddings": params["embeddings"] | {"positions": 0.0 * places}}
    assert moved(nowhere) < 1e-5 < 1e-4 < moved(params)


def test_positions_and_segments_may_be_given(params):
    embed = jax.jit(Embeddings(SIZES).apply)
    own, none = {"params": params["embeddings"]}, jnp.zeros_like(IDS)
    place = jnp.broadcast_to(jnp.arange(6)[None], IDS.shape)
    plain = np.asarray(embed(own, IDS))
    np.testing.assert_allclose(embed(own, IDS, place, none), plain, rtol=0, atol=1e-6)
    for other in (embed(own, IDS, place, none + 1), embed(own, IDS, place + 3, none)):
        assert (np.abs(np.asarray(other) - plain).max(axis=2) > 1e-3).all()


def test_the_encoder_reads_any_vectors(params):
    encode = jax.jit(Encoder(SIZES).apply)
    own, x = {"params": params["encoder"]}, normal(3, 6, 8)
    mask = mask_of([3, 1, 0], 6) | (jnp.arange(6)[None] == 4)  # padding in the middle
    found = np.asarray(encode(own, x, mask))
    filled = encode(own, jnp.where(mask[:, :, None], x, 7.0), mask)
    np.testing.assert_array_equal(filled, found)
    order = jnp.asarray([0, 1, 2, 4, 3, 5])
    moved = encode(own, x[:, order], mask[:, order])  # nothing but embeddings tells places
    np.testing.assert_allclose(moved, found[:, order], rtol=0, atol=1e-5)
    assert np.abs(found[2, 4]).max() > 0.1
    assert not found[2, :4].any()


def test_dropout_depends_on_the_row_and_is_off_at_evaluation(params):
    dropped = np.asarray(states(params, IDS, MASK, KEYS))
    assert np.abs(dropped - states(params, IDS, MASK)).max() > 0.1
    order = jnp.asarray([2, 0, 1])
    moved = states(params, IDS[order], MASK[order], Keys(KEYS.base, KEYS.rows[order]))
    np.testing.assert_array_equal(moved, dropped[order])


def test_more_tokens_than_positions_raise(params):
    with pytest.raises(ValueError, match="10 tokens, but BERT has 9 positions"):
        states(params, jnp.zeros((1, 10), jnp.int32), jnp.ones((1, 10), bool))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads do not divide"):
        Sizes(20, width=8, heads=3)
