"""Layers of MCAN (Yu et al., CVPR 2019): self-attention, guided attention, attention as a pool."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.bert import Sizes
from hmgr_jax.layers.dropout import Keys, dropout
from hmgr_jax.layers.linear import Linear, einsum
from hmgr_jax.layers.masking import masked_softmax
from hmgr_jax.shapes import Array, Bool, Float


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=jnp.float32, name=name)


class Guided(nn.Module):
    """Self-attention, attention to guides where there are any, and an MLP; a norm after each.

    Without guides this is the paper's SA, with them its SGA (section 3.1).
    """

    sizes: Sizes
    """Its width, heads, intermediate and dropout count."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N W"],
        mask: Bool[Array, "B N"],
        guides: Float[Array, "B M W"] | None,
        guide_mask: Bool[Array, "B M"] | None,
        keys: Keys | None,
    ) -> Float[Array, "B N W"]:
        """Apply the layer; what stands at padding of ``x`` is of no use."""
        s = self.sizes
        own = keys.named(self.name or "") if keys is not None else None
        x = _norm("own_norm")(x + self._attend("own", x, x, mask, own))
        if guides is not None and guide_mask is not None:
            x = _norm("guided_norm")(x + self._attend("guided", x, guides, guide_mask, own))
        hidden = jax.nn.relu(Linear(s.intermediate, dtype=self.dtype, name="hidden")(x))
        hidden = dropout(hidden, s.dropout, own, "hidden")
        update = Linear(s.width, dtype=self.dtype, name="out")(hidden)
        return _norm("norm")(x + dropout(update, s.dropout, own, "out"))

    def _attend(self, name: str, x: Array, to: Array, mask: Array, keys: Keys | None) -> Array:
        s, (batch, _, width) = self.sizes, x.shape
        heads = (batch, -1, s.heads, width // s.heads)
        query, key, value = (
            Linear(width, dtype=self.dtype, name=f"{name}_{part}")(of).reshape(heads)
            for part, of in (("query", x), ("key", to), ("value", to))
        )
        logits = einsum("bqhd,bkhd->bhqk", query, key, dtype=self.dtype) / heads[-1] ** 0.5
        weights = masked_softmax(logits, jnp.broadcast_to(mask[:, None, None, :], logits.shape))
        weights = dropout(weights, s.dropout, keys, f"{name}_weights")
        seen = einsum("bhqk,bkhd->bqhd", weights, value, dtype=self.dtype).reshape(x.shape)
        update = Linear(width, dtype=self.dtype, name=f"{name}_out")(seen)
        return dropout(update, s.dropout, keys, f"{name}_update")


class AttentionFlat(nn.Module):
    """One vector: the mean of what is valid, weighted by an MLP, through a linear map."""

    features: int
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N W"], mask: Bool[Array, "B N"], keys: Keys | None
    ) -> Float[Array, "B W"]:
        """Pool the valid of ``x``; the MLP has half its width."""
        hidden = jax.nn.relu(Linear(x.shape[-1] // 2, dtype=self.dtype, name="hidden")(x))
        hidden = dropout(hidden, self.dropout, keys, f"{self.name}/hidden")
        weights = masked_softmax(Linear(1, name="weight")(hidden)[..., 0], mask)
        pooled = einsum("bn,bnd->bd", weights, x)
        return Linear(self.features, dtype=self.dtype, name="out")(pooled)
