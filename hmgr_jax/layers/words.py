"""Word vectors and a bidirectional GRU over a caption (spec 1.3)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.dropout import Keys, dropout, keep_mask
from hmgr_jax.layers.linear import uniform
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.layers.recurrent import BiGRU
from hmgr_jax.shapes import Array, Bool, Float, Int

UNKNOWN = 3
"""Id of <unk> in a SCAN vocabulary."""


class WordEncoder(nn.Module):
    """Tokens to word states; in training, words turn into <unk> at ``word_dropout``."""

    vocabulary_size: int
    word_features: int
    features: int
    word_dropout: float = 0.0
    vector_dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B L"], lengths: Int[Array, " B"], keys: Keys | None
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """States of all words (0 at padding) and their mask; ``keys`` is None at evaluation."""
        mask = length_mask(lengths, tokens.shape[1])
        if keys is not None and self.word_dropout:
            keep = keep_mask(keys.named("words"), tokens.shape[1:], self.word_dropout)
            ends = (tokens == 1) | (tokens == 2)  # <start> and <end> always stay
            tokens = jnp.where(keep | ends | ~mask, tokens, UNKNOWN)
        table = self.param(
            "vectors", uniform(0.1), (self.vocabulary_size, self.word_features), jnp.float32
        )
        x = dropout(table[tokens], self.vector_dropout, keys, "word_vectors")
        return BiGRU(self.features, dtype=self.dtype, name="gru")(x, lengths), mask
