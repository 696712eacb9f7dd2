"""Matrix products with float32 accumulation, whatever the compute type."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.shapes import Array, Float

Initializer = Any


def einsum(formula: str, *operands: Array, dtype: Any = jnp.float32) -> Array:
    """``jnp.einsum`` of operands cast to ``dtype``, accumulated and returned in float32."""
    return jnp.einsum(
        formula, *[x.astype(dtype) for x in operands], preferred_element_type=jnp.float32
    )


def uniform(bound: float) -> Initializer:
    """Initializer U(-bound, bound)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """``x W + b`` on the last axis; parameters float32, product in ``dtype``, result float32."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Initializer = nn.initializers.xavier_uniform()
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]:
        """Apply the map."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = einsum("...i,io->...o", x, kernel, dtype=self.dtype)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return y
