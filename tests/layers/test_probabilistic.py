"""Heads, sentence vectors and removed words of PCME."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import linear, mask_of, normal, random_params, softmax, unit

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.probabilistic import MeanHead, SigmaHead
from hmgr_jax.layers.recurrent import SENTENCE_POOLS, SentenceGRU
from hmgr_jax.layers.words import forget_words, remove_words

LENGTHS = [4, 2, 1]


def layer_norm(params, x):
    spread = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (x - x.mean(-1, keepdims=True)) / spread * params["scale"] + params["bias"]


def test_heads_equal_their_equations():
    x, mask, whole = normal(3, 5, 6), mask_of(LENGTHS, 5), normal(3, 4, seed=1)
    head = MeanHead(4, proposals=2)
    params = random_params(head, x, mask, whole)
    means, weights = head.apply({"params": params}, x, mask, whole)
    p = jax.tree.map(np.asarray, params)
    logits = linear(p["attention"]["out"], np.tanh(linear(p["attention"]["hidden"], x)))
    expected = softmax(np.where(np.asarray(mask)[:, :, None], logits, -np.inf), axis=1)
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)
    attended = np.einsum("bnk,bnc->bkc", expected, x)
    local = 1 / (1 + np.exp(-linear(p["fc"], attended)))
    normed = layer_norm(p["norm"], np.asarray(whole)[:, None] + local)
    np.testing.assert_allclose(means, unit(normed), rtol=1e-4, atol=1e-5)

    sigma = SigmaHead(4)
    params = random_params(sigma, x, mask, whole)
    p = jax.tree.map(np.asarray, params)
    logits = linear(p["attention"]["out"], np.tanh(linear(p["attention"]["hidden"], x)))
    weights = softmax(np.where(np.asarray(mask)[:, :, None], logits, -np.inf), axis=1)
    attended = np.einsum("bnk,bnc->bkc", weights, x)[:, 0]
    found = sigma.apply({"params": params}, x, mask, whole)
    np.testing.assert_allclose(found, linear(p["fc"], attended) + whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", SENTENCE_POOLS)
def test_sentence_vectors_equal_their_definitions(pool):
    """They ignore padding; with last_index the backward half has read the last word alone."""
    x, lengths = normal(3, 5, 6), jnp.asarray(LENGTHS)
    gru = SentenceGRU(8, pool)
    params = {"params": random_params(gru, x, lengths)}
    found = np.asarray(gru.apply(params, x, lengths))
    longer = jnp.concatenate([x, normal(3, 2, 6, seed=3)], axis=1)
    longer = jnp.where(mask_of(LENGTHS, 7)[:, :, None], longer, 7.0)
    np.testing.assert_allclose(gru.apply(params, longer, lengths), found, rtol=1e-5, atol=1e-6)
    first = np.asarray(gru.apply(params, x.at[0, 0].add(1.0), lengths))
    assert np.abs(first[0, :4] - found[0, :4]).max() > 1e-3
    sees = np.abs(first[0, 4:] - found[0, 4:]).max() > 1e-4
    assert sees == (pool != "last_index")
    last = np.asarray(gru.apply(params, x.at[0, 3].add(1.0), lengths))
    assert np.abs(last[0, 4:] - found[0, 4:]).max() > 1e-3


def test_remove_words_keeps_marks_and_order():
    lengths = jnp.asarray([12, 3, 2, 7], jnp.int32)
    words = np.arange(4 * 14).reshape(4, 14) + 10
    tokens = np.where(np.arange(14) < np.asarray(lengths)[:, None], words, 0)
    tokens[:, 0] = 1
    for row, n in zip(tokens, lengths, strict=True):
        row[int(n) - 1] = 2
    keys = Keys.at(jnp.int32(0), jnp.int32(3), jnp.arange(4))
    kept, fewer = remove_words(jnp.asarray(tokens, jnp.int32), lengths, 0.3, keys)
    np.testing.assert_array_equal(fewer, [9, 3, 2, 6])  # of 10 words 3, of 1 none, of 5 one
    for before, after, n in zip(tokens, np.asarray(kept), np.asarray(fewer), strict=True):
        assert not after[n:].any()
        assert after[n - 1] == 2
        rest = iter(before)
        assert all(word in rest for word in after[:n])  # in their order
    again, _ = remove_words(jnp.asarray(tokens, jnp.int32), lengths, 0.3, keys.named("other"))
    assert not np.array_equal(again[0], kept[0])
    assert remove_words(jnp.asarray(tokens), lengths, 0.3, None)[1] is lengths


def test_forget_words_replaces_words_by_unknown():
    tokens = jnp.asarray([[1, *range(5, 40), 2, 0]], jnp.int32)
    mask = mask_of([37], 38)
    found = np.asarray(forget_words(tokens, mask, 0.5, Keys.at(*[jnp.int32(0)] * 2, jnp.arange(1))))
    assert found[0, 0] == 1
    assert found[0, 36] == 2
    assert found[0, 37] == 0
    assert 5 < (found == 3).sum() < 30
