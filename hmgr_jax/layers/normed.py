"""A linear map, batch norm, and a rectifier: what encoders of points and faces are made of."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import BatchNorm, Rows
from hmgr_jax.layers.linear import Initializer, Linear
from hmgr_jax.shapes import Array, Float

as_torch: Initializer = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
"""U(±1/√inputs), as PyTorch draws the weights of linear maps and convolutions."""


def rectified(x: Float[Array, "..."], slope: float) -> Float[Array, "..."]:
    """ReLU, or leaky ReLU of that ``slope``."""
    return jax.nn.leaky_relu(x, slope) if slope else jax.nn.relu(x)


class NormedLinear(nn.Module):
    """``ReLU(BN(x W))`` on the last axis; a bias before the norm has no effect but in parity."""

    features: int
    use_bias: bool = False
    slope: float = 0.0
    """Of leaky ReLU."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *grid C"], rows: Rows | None) -> Float[Array, "..."]:
        """Apply; ``rows`` are those of `BatchNorm`."""
        linear = Linear(
            self.features, self.use_bias, self.dtype, kernel_init=as_torch, name="linear"
        )
        return rectified(BatchNorm(name="norm")(linear(x), rows), self.slope)


class NormedLinears(nn.Module):
    """Several in a row, ``layer0`` and on."""

    features: tuple[int, ...]
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *grid C"], rows: Rows | None) -> Float[Array, "..."]:
        """Apply one after the other."""
        for number, size in enumerate(self.features):
            x = NormedLinear(size, self.use_bias, dtype=self.dtype, name=f"layer{number}")(x, rows)
        return x
