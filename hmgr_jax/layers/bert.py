"""BERT (Devlin et al., NAACL 2019), as Hugging Face's ``BertModel`` without the pooler.

`Embeddings` maps ids to vectors, `Encoder` maps any vectors to states, `Bert` is both. Parameter
names follow the released ones; `hmgr_jax.interop.bert` maps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.dropout import Keys, dropout
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.transformer import attend
from hmgr_jax.shapes import Array, Bool, Float, Int

START = nn.initializers.truncated_normal(0.02)
"""Initial values of BERT's tables and weights; biases start at 0."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a BERT; the defaults are BERT-base."""

    vocabulary: int
    width: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    positions: int = 512
    segments: int = 2
    dropout: float = 0.1
    """Dropout of embeddings, attention weights and updates, in training."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")


def layer_norm(name: str) -> nn.LayerNorm:
    """BERT's layer norm, with ε 1e-12."""
    return nn.LayerNorm(epsilon=1e-12, use_fast_variance=False, dtype=jnp.float32, name=name)


class Embeddings(nn.Module):
    """Layer norm of the sum of word, position and segment vectors."""

    sizes: Sizes

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "B L"],
        positions: Int[Array, "B L"] | None = None,
        segments: Int[Array, "B L"] | None = None,
        keys: Keys | None = None,
    ) -> Float[Array, "B L H"]:
        """Vectors of ids; by default positions count from 0 and segments are 0.

        Raises:
            ValueError: ``positions`` is None and the text is longer than the position table.
        """
        s, (batch, length) = self.sizes, ids.shape
        if positions is None:
            if length > s.positions:
                raise ValueError(
                    f"the text has {length} tokens, but BERT has {s.positions} positions"
                )
            positions = jnp.broadcast_to(jnp.arange(length)[None, :], (batch, length))
        segments = jnp.zeros_like(ids) if segments is None else segments
        x = (
            self._table("words", s.vocabulary)[ids]
            + self._table("positions", s.positions)[positions]
            + self._table("segments", s.segments)[segments]
        )
        return dropout(layer_norm("norm")(x), s.dropout, keys, "embeddings")

    def _table(self, name: str, rows: int) -> Array:
        return self.param(name, START, (rows, self.sizes.width), jnp.float32)


class Encoder(nn.Module):
    """Layers of self-attention and an MLP, a norm after each."""

    sizes: Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L H"], mask: Bool[Array, "B L"], keys: Keys | None = None
    ) -> Float[Array, "B L H"]:
        """States of the last layer, 0 at padding; no state depends on padding.

        Args:
            x: embeddings, finite everywhere.
            mask: False at padding.
            keys: keys of dropout; None at evaluation.
        """
        for number in range(self.sizes.layers):
            name = f"layer{number}"
            own = keys.named(name) if keys is not None else None
            x = Layer(self.sizes, self.dtype, name=name)(x, mask, own)
        return jnp.where(mask[:, :, None], x, 0.0)


class Layer(nn.Module):
    """``x = norm(x + attention(x))``, then ``norm(x + out(gelu(hidden(x))))``; exact GELU."""

    sizes: Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L H"], mask: Bool[Array, "B L"], keys: Keys | None
    ) -> Float[Array, "B L H"]:
        """Apply the layer."""
        s = self.sizes
        update = self._linear(s.width, "attention_out")(self._attend(x, mask, keys))
        update = dropout(update, s.dropout, keys, "attention_out")
        x = layer_norm("attention_norm")(x + update)
        hidden = jax.nn.gelu(self._linear(s.intermediate, "hidden")(x), approximate=False)
        update = dropout(self._linear(s.width, "out")(hidden), s.dropout, keys, "out")
        return layer_norm("norm")(x + update)

    def _attend(self, x: Array, mask: Array, keys: Keys | None) -> Array:
        s = self.sizes
        query, key, value = (self._linear(s.width, name)(x) for name in ("query", "key", "value"))
        return attend(
            query,
            key,
            value,
            heads=s.heads,
            mask=mask[:, None, None, :],
            dtype=self.dtype,
            drop=lambda weights: dropout(weights, s.dropout, keys, "weights"),
        )

    def _linear(self, features: int, name: str) -> Linear:
        return Linear(features, dtype=self.dtype, kernel_init=START, name=name)


class Bert(nn.Module):
    """A BERT from ids to states."""

    sizes: Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B L"], mask: Bool[Array, "B L"], keys: Keys | None = None
    ) -> Float[Array, "B L H"]:
        """States of all words, 0 at padding; with one segment and positions from 0."""
        x = Embeddings(self.sizes, name="embeddings")(ids, keys=keys)
        return Encoder(self.sizes, self.dtype, name="encoder")(x, mask, keys)
