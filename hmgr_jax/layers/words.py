"""Word vectors, and a bidirectional GRU over a caption (SCAN family)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.dropout import Keys, dropout, keep_mask, uniform_numbers
from hmgr_jax.layers.linear import Linear, uniform
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.layers.recurrent import BiGRU
from hmgr_jax.shapes import Array, Bool, Float, Int

UNKNOWN = 3
"""Id of <unk> in a SCAN vocabulary."""


def forget_words(
    tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], rate: float, keys: Keys | None
) -> Int[Array, "B L"]:
    """Replace words by <unk> with probability ``rate`` in training; <start> and <end> are kept."""
    if keys is None or not rate:
        return tokens
    keep = keep_mask(keys.named("words"), tokens.shape[1:], rate)
    ends = (tokens == 1) | (tokens == 2)
    return jnp.where(keep | ends | ~mask, tokens, UNKNOWN)


def remove_words(
    tokens: Int[Array, "B L"], lengths: Int[Array, " B"], share: float, keys: Keys | None
) -> tuple[Int[Array, "B L"], Int[Array, " B"]]:
    """Remove a random ``share`` of the words, rounded down, from every caption (PCME).

    <start> and <end> are kept and do not count as words; later words move up, padded with 0.
    """
    if keys is None or not share:
        return tokens, lengths
    place = jnp.arange(tokens.shape[1])[None, :]
    is_word = (place > 0) & (place < lengths[:, None] - 1)
    draws = uniform_numbers(keys.named("removed"), tokens.shape[1])
    rank = jnp.argsort(jnp.argsort(jnp.where(is_word, draws, 2.0), axis=1), axis=1)
    # 1e-4 makes 0.3 * 10 three words despite rounding.
    count = jnp.floor(share * (jnp.maximum(lengths - 2, 0)).astype(jnp.float32) + 1e-4)
    count = count.astype(jnp.int32)
    keep = (place < lengths[:, None]) & ~(is_word & (rank < count[:, None]))
    order = jnp.argsort(~keep, axis=1, stable=True)
    kept = jnp.take_along_axis(tokens, order, axis=1)
    lengths = lengths - count
    return jnp.where(place < lengths[:, None], kept, 0), lengths


class WordVectors(nn.Module):
    """A table of word vectors, initialised from N(0, 1)."""

    vocabulary_size: int
    features: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Look up."""
        shape = (self.vocabulary_size, self.features)
        table: Array = self.param("vectors", nn.initializers.normal(1.0), shape, jnp.float32)
        return table[tokens]


class WordEncoder(nn.Module):
    """Tokens to word states; in training words become <unk> with probability ``word_dropout``."""

    vocabulary_size: int
    word_features: int
    features: int
    word_dropout: float = 0.0
    vector_dropout: float = 0.0
    dtype: Any = jnp.float32
    recurrent: bool = True
    """False: a linear map of every word's vector instead of the GRU."""

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B L"], lengths: Int[Array, " B"], keys: Keys | None
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """States of all words (0 at padding) and their mask; ``keys`` is None at evaluation."""
        mask = length_mask(lengths, tokens.shape[1])
        tokens = forget_words(tokens, mask, self.word_dropout, keys)
        table = self.param(
            "vectors", uniform(0.1), (self.vocabulary_size, self.word_features), jnp.float32
        )
        x = dropout(table[tokens], self.vector_dropout, keys, "word_vectors")
        if not self.recurrent:
            x = Linear(self.features, dtype=self.dtype, name="project")(x)
            return jnp.where(mask[:, :, None], x, 0.0), mask
        return BiGRU(self.features, dtype=self.dtype, name="gru")(x, lengths), mask
