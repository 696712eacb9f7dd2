"""Batch normalisation over the valid rows of all devices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum, repeated
from hmgr_jax.shapes import Array, Bool, Float

STATS = "stats"
"""Name of the collection of running means and variances."""


Moments = tuple[Array, Array, Array]
"""Mean [C] and biased variance [C] of each channel, and the number of values in each."""


@dataclass(frozen=True)
class ValidRows:
    """The valid rows of a training batch on this device, and the devices."""

    valid: Bool[Array, " b"]
    axis: Any
    """The model's ``Axis``."""


def spread(x: Float[Array, " C"], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """``x`` broadcast to ``shape`` [..., C]; its gradient is summed one axis at a time."""
    for count in reversed(shape[:-1]):
        x = repeated(x, count)
    return x


def summed(x: Float[Array, "b *grid C"], rows: ValidRows) -> Float[Array, " C"]:
    """Sum over valid rows of all devices and over the grid.

    One axis at a time: a single sum over a hundred thousand numbers would lose two more digits, and
    the error would grow from layer to layer.
    """
    weights = rows.valid.astype(jnp.float32)
    while x.ndim > 1:
        x = einsum("b,bn->n", weights, x.reshape(len(x), -1)).reshape(x.shape[1:])
        weights = jnp.ones(x.shape[0], jnp.float32)
    found: Array = rows.axis.sum(x)
    return found


def mean_and_variance(x: Float[Array, "b *grid C"], rows: ValidRows) -> Moments:
    """Mean and biased variance of each channel over the valid rows of all devices, and the count.

    Two passes: the mean is subtracted before squaring, so that no digits cancel. Sums are
    over all devices, so results equal those of one device up to rounding.
    """
    cells = math.prod(x.shape[1:-1])
    count = rows.axis.sum(jnp.sum(rows.valid.astype(jnp.float32))) * cells
    count = jnp.maximum(count, 1.0)
    mean = summed(x, rows) / count
    centred = x - spread(mean, x.shape)
    return mean, summed(centred * centred, rows) / count, count


class BatchNorm(nn.Module):
    """PyTorch's batch norm: ε 1e-5, running statistics with momentum 0.9 and unbiased variance."""

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *grid C"], rows: ValidRows | None, moments: Moments | None = None
    ) -> Float[Array, "..."]:
        """Normalise by batch statistics, or by the running statistics if ``rows`` is None.

        ``x`` must be finite, also in invalid rows. ``moments`` replace the moments of ``x``, which
        may then be a part of the batch.
        """
        size = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (size,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (size,), jnp.float32)
        kept_mean = self.variable(STATS, "mean", jnp.zeros, (size,), jnp.float32)
        kept_variance = self.variable(STATS, "variance", jnp.ones, (size,), jnp.float32)
        x = x.astype(jnp.float32)
        if rows is None:
            mean, variance = kept_mean.value, kept_variance.value
        else:
            mean, variance, count = moments or mean_and_variance(x, rows)
            share, unbiased = 1.0 - self.momentum, variance * count / jnp.maximum(count - 1.0, 1.0)
            kept_mean.value = self.momentum * kept_mean.value + share * mean
            kept_variance.value = self.momentum * kept_variance.value + share * unbiased
        gain = scale / jnp.sqrt(variance + self.epsilon)
        return (x - spread(mean, x.shape)) * spread(gain, x.shape) + spread(bias, x.shape)
