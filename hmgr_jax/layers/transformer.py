"""Multi-head attention, and the pre-norm Transformer of CLIP's and SigLIP's towers.

``attend`` is shared with BERT, whose layers have their norms after the updates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import Linear, einsum
from hmgr_jax.layers.masking import masked_softmax
from hmgr_jax.shapes import Array, Bool, Float

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}
"""Activations of the MLPs by transformers' names."""


def attend(
    query: Float[Array, "B Q H"],
    key: Float[Array, "B K H"],
    value: Float[Array, "B K H"],
    *,
    heads: int,
    mask: Bool[Array, "..."] | None = None,
    dtype: Any = jnp.float32,
    drop: Callable[[Array], Array] = lambda weights: weights,
) -> Float[Array, "B Q H"]:
    """Attention by scaled inner products in each of ``heads`` equal parts of the vectors.

    Args:
        query: from which to look.
        key: where to look.
        value: what is seen there.
        heads: number of parts.
        mask: True where a query sees a key, of a shape that broadcasts to [B, heads, Q, K] (with 4
            axes); by default everywhere.
        dtype: of the products.
        drop: dropout of the weights [B, heads, Q, K].
    """
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
    logits = einsum("bqhd,bkhd->bhqk", q, k, dtype=dtype) / q.shape[-1] ** 0.5
    if mask is None:
        weights = jax.nn.softmax(logits, axis=-1)
    else:
        weights = masked_softmax(logits, jnp.broadcast_to(mask, logits.shape))
    seen = einsum("bhqk,bkhd->bqhd", drop(weights), v, dtype=dtype)
    return seen.reshape(query.shape)


@dataclass(frozen=True)
class Sizes:
    """Sizes of a Transformer.

    Raises ``ValueError`` if the heads do not divide the width or the activation is unknown.
    """

    width: int
    layers: int
    heads: int
    intermediate: int
    """Width of the MLPs."""
    activation: str = "quick_gelu"
    """One of `ACTIVATIONS`."""
    epsilon: float = 1e-5
    """Of the norms."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"the activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}"
            )


def layer_norm(sizes: Sizes, name: str) -> nn.LayerNorm:
    """A layer norm in float32."""
    return nn.LayerNorm(
        epsilon=sizes.epsilon, use_fast_variance=False, dtype=jnp.float32, name=name
    )


class Attention(nn.Module):
    """Attention of ``x`` to ``context``, with linear maps before and after."""

    sizes: Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q H"],
        context: Float[Array, "B K H"],
        mask: Bool[Array, "..."] | None = None,
    ) -> Float[Array, "B Q H"]:
        """Apply it; ``mask`` as in `attend`."""
        width, heads = self.sizes.width, self.sizes.heads
        query = Linear(width, dtype=self.dtype, name="query")(x)
        key = Linear(width, dtype=self.dtype, name="key")(context)
        value = Linear(width, dtype=self.dtype, name="value")(context)
        seen = attend(query, key, value, heads=heads, mask=mask, dtype=self.dtype)
        return Linear(width, dtype=self.dtype, name="out")(seen)


class MLP(nn.Module):
    """Two linear maps with the activation between them."""

    sizes: Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
        """Apply it."""
        hidden = Linear(self.sizes.intermediate, dtype=self.dtype, name="hidden")(x)
        act = ACTIVATIONS[self.sizes.activation]
        return Linear(self.sizes.width, dtype=self.dtype, name="out")(act(hidden))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    sizes: Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L H"], mask: Bool[Array, "..."] | None
    ) -> Float[Array, "B L H"]:
        """Apply the block."""
        y = layer_norm(self.sizes, "attention_norm")(x)
        x = x + Attention(self.sizes, self.dtype, name="attention")(y, y, mask)
        y = layer_norm(self.sizes, "mlp_norm")(x)
        return x + MLP(self.sizes, self.dtype, name="mlp")(y)


class Encoder(nn.Module):
    """The blocks of a tower, without a norm after the last."""

    sizes: Sizes
    dtype: Any = jnp.float32
    checkpoint: bool = False
    """Recompute the inside of each block in the backward pass instead of storing it."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L H"], mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "B L H"]:
        """States after the last block; ``mask`` as in `attend`."""
        of = nn.remat(Block) if self.checkpoint else Block
        for number in range(self.sizes.layers):
            x = of(self.sizes, self.dtype, name=f"layer{number}")(x, mask)
        return x
