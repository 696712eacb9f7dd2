"""Batch normalisation over all devices of a step, which rows that only fill a batch never reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum, repeated
from hmgr_jax.shapes import Array, Bool, Float

STATS = "stats"
"""The collection of running means and variances."""


@dataclass(frozen=True)
class Rows:
    """This device's rows of a training batch, as far as other rows' numbers depend on them."""

    valid: Bool[Array, " b"]
    axis: Any
    """The model's ``Axis``."""


def mean_and_variance(
    x: Float[Array, "b *grid C"], rows: Rows
) -> tuple[Float[Array, " C"], Float[Array, " C"], Float[Array, ""]]:
    """Mean and biased variance of every channel over the valid rows of all devices; their count.

    Two passes: the squares are those of what is left after the mean, so that nothing cancels, and
    the sums are over devices, so that the numbers are those of one device up to rounding.
    """
    flat = x.reshape(-1, x.shape[-1])
    size = flat.shape[0] // x.shape[0]
    weights = jnp.repeat(rows.valid.astype(jnp.float32), size)
    count = jnp.maximum(rows.axis.sum(jnp.sum(weights)), 1.0)
    mean = rows.axis.sum(einsum("nc,n->c", flat, weights)) / count
    centred = flat - repeated(mean, flat.shape[0])
    return mean, rows.axis.sum(einsum("nc,n->c", centred * centred, weights)) / count, count


class BatchNorm(nn.Module):
    """PyTorch's: ε 1e-5, and running statistics that a tenth of a batch's, unbiased, flows into."""

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b *grid C"], rows: Rows | None) -> Float[Array, "..."]:
        """Normalise by the batch that ``rows`` belong to, or (None) by the running statistics.

        ``x`` must be finite in rows that are not valid, too.
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
            mean, variance, count = mean_and_variance(x, rows)
            share, unbiased = 1.0 - self.momentum, variance * count / jnp.maximum(count - 1.0, 1.0)
            kept_mean.value = self.momentum * kept_mean.value + share * mean
            kept_variance.value = self.momentum * kept_variance.value + share * unbiased
        flat = x.reshape(-1, size)
        count_here = flat.shape[0]
        gain = scale / jnp.sqrt(variance + self.epsilon)
        y = (flat - repeated(mean, count_here)) * repeated(gain, count_here)
        return (y + repeated(bias, count_here)).reshape(x.shape)
