"""Pool the nodes of an item to one unit vector."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from hmgr_jax.layers.dropout import Keys, dropout
from hmgr_jax.layers.linear import Linear, einsum
from hmgr_jax.layers.masking import (
    l2n,
    length_mask,
    masked_max,
    masked_mean,
    masked_softmax,
    move_valid_first,
)
from hmgr_jax.layers.recurrent import GRU, BiGRU
from hmgr_jax.shapes import Array, Bool, Float

POOLS = ("attention", "mean", "max", "gru", "gpo")


class GlobalPool(nn.Module):
    """Attention guided by the mean node, mean, maximum, the last state of a GRU, or `GPO`.

    ``attention``: e_i = w·(tanh(x_i W_1) ⊙ tanh(mean(x) W_2)), a softmax over valid nodes, dropout
    on both tanh branches (CVSE, SGRAF). ``gru`` is VSRN's.
    """

    kind: str = "attention"
    dropout: float = 0.4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], mask: Bool[Array, "B N"], keys: Keys | None
    ) -> Float[Array, "B D"]:
        """Pool the valid nodes of ``x`` to unit vectors; ``keys`` is None at evaluation."""
        if self.kind == "attention":
            return l2n(self._attend(x, mask, keys))
        if self.kind == "mean":
            return l2n(masked_mean(x, mask))
        if self.kind == "max":
            return l2n(masked_max(x, mask))
        if self.kind == "gru":
            x, mask = move_valid_first(x, mask)  # a dropped node is no step
            states = GRU(x.shape[-1], dtype=self.dtype, name="gru")(x)
            last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)
            return l2n(jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0])
        if self.kind == "gpo":
            return l2n(GPO(dtype=self.dtype, name="gpo")(x, mask))
        raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {self.kind!r}")

    def _attend(self, x: Array, mask: Array, keys: Keys | None) -> Array:
        local = jnp.tanh(Linear(x.shape[-1], dtype=self.dtype, name="local")(x))
        guide = jnp.tanh(Linear(x.shape[-1], dtype=self.dtype, name="guide")(masked_mean(x, mask)))
        local = dropout(local, self.dropout, keys, f"{self.name}/local")
        guide = dropout(guide, self.dropout, keys, f"{self.name}/guide")
        logits = Linear(1, name="weight")(local * guide[:, None, :])[..., 0]
        weights = masked_softmax(logits, mask)
        self.sow("intermediates", "weights", weights)  # stored only if a caller collects them
        return einsum("bn,bnd->bd", weights, x)


class GPO(nn.Module):
    """Generalized pooling operator of VSE∞ (Chen et al., CVPR 2021).

    Every feature is a weighted mean of its sorted values. The learned weights depend on the rank
    and the number of nodes, and range from the maximum to the mean.
    """

    features: int = 32
    sharpness: float = 10.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], mask: Bool[Array, "B N"]) -> Float[Array, "B D"]:
        """Pool the valid nodes."""
        size = x.shape[1]
        shape = (len(x), size, self.features)
        lengths = jnp.sum(mask, axis=1)
        waves = jnp.broadcast_to(_waves(size, self.features)[None], shape)
        states = BiGRU(self.features, dtype=self.dtype, name="gru")(waves, lengths)
        logits = self.sharpness * Linear(1, use_bias=False, name="weight")(states)[..., 0]
        ranked = -jnp.sort(jnp.where(mask[:, :, None], -x, jnp.inf), axis=1)
        valid = length_mask(lengths, size)
        ranked = jnp.where(valid[:, :, None], ranked, 0.0)
        return einsum("bn,bnd->bd", masked_softmax(logits, valid), ranked)


def _waves(count: int, features: int) -> np.ndarray:
    """Sinusoidal position encodings of ranks 0 to ``count`` - 1: [count, F]."""
    rates = 10000.0 ** (-np.arange(0, features, 2) / features)
    angles = np.arange(count)[:, None] * rates[None, :]
    return np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(count, features).astype("f4")
