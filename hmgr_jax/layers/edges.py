"""Layers for encoders of points and faces: linear maps with batch norm, maxima over neighbours.

`NeighbourMax` computes max_j ReLU(BN([x_j ; x_i] W)) without the vectors of pairs. A linear map of
a pair is a sum, ``other_j + own_i``, of maps of its nodes, so matrix products run over nodes and
not over edges. Batch norm and ReLU are monotone in every channel, increasing or decreasing, so the
maximum is at the largest or at the smallest sum. Only these two are normalised, by the moments of
all edges. Neighbours are visited one at a time, forward and backward, so memory does not grow with
their number.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import BatchNorm, Moments, ValidRows, spread, summed
from hmgr_jax.layers.linear import Initializer, Linear, einsum
from hmgr_jax.shapes import Array, Float, Int

as_torch: Initializer = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
"""U(±1/√inputs), PyTorch's initialisation of linear maps and convolutions."""


def rectified(x: Float[Array, "..."], slope: float) -> Float[Array, "..."]:
    """ReLU, or leaky ReLU with a ``slope`` above 0."""
    return jax.nn.leaky_relu(x, slope) if slope else jax.nn.relu(x)


class NormedLinear(nn.Module):
    """``ReLU(BN(x W))`` on the last axis.

    A bias before the norm has no effect; it exists to load released weights.
    """

    features: int
    use_bias: bool = False
    slope: float = 0.0
    """Slope of the leaky ReLU; 0: ReLU."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *grid C"], rows: ValidRows | None) -> Float[Array, "..."]:
        """Apply the layer; for ``rows`` see `BatchNorm`."""
        linear = Linear(
            self.features, self.use_bias, self.dtype, kernel_init=as_torch, name="linear"
        )
        return rectified(BatchNorm(name="norm")(linear(x), rows), self.slope)


class NormedLinears(nn.Module):
    """A sequence of `NormedLinear`, named ``layer0``, ``layer1``, ..."""

    features: tuple[int, ...]
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *grid C"], rows: ValidRows | None) -> Float[Array, "..."]:
        """Apply the layers in order."""
        for number, size in enumerate(self.features):
            x = NormedLinear(size, self.use_bias, dtype=self.dtype, name=f"layer{number}")(x, rows)
        return x


def nearest(x: Float[Array, "b N C"], count: int) -> Int[Array, "b N K"]:
    """The ``count`` nodes nearest to each node, usually itself first; no gradient flows."""
    x = jax.lax.stop_gradient(x.astype(jnp.float32))
    square = jnp.sum(x * x, axis=-1)
    near = 2.0 * einsum("bnc,bmc->bnm", x, x) - square[:, None, :]
    rows = near.reshape(
        -1, near.shape[-1]
    )  # XLA has a fast top-k only for matrices, not for three axes
    return jax.lax.top_k(rows, count)[1].reshape(*near.shape[:2], count)


def gathered(x: Float[Array, "b N C"], at: Int[Array, "b *n"]) -> Float[Array, "b *n C"]:
    """Vectors of the nodes with indices ``at`` in [0, N - 1]."""
    return jax.vmap(lambda own, index: own.at[index].get(mode="clip"))(x, at)


def _scattered(x: Float[Array, "b N C"], at: Int[Array, "b n"], more: Array) -> Array:
    """The transpose of `gathered`: ``x`` with ``more`` added at the nodes ``at``."""
    return jax.vmap(lambda own, index, y: own.at[index].add(y, mode="clip"))(x, at, more)


class NeighbourMax(nn.Module):
    """``max_j ReLU(BN(other_j + own_i))`` over the neighbours j of i."""

    slope: float = 0.0

    @nn.compact
    def __call__(
        self,
        other: Float[Array, "b N C"],
        own: Float[Array, "b N C"],
        index: Int[Array, "b N K"],
        rows: ValidRows | None,
    ) -> Float[Array, "b N C"]:
        """Maximum per node; with ``rows`` (training) the norm uses the moments of all edges."""
        top, low, total = ends(other, index)
        found = jnp.stack([top, low], axis=2) + own[:, :, None, :]
        moments = None if rows is None else _moments(other, own, total, index, rows)
        normed = rectified(BatchNorm(name="norm")(found, rows, moments), self.slope)
        of_top, of_low = normed[:, :, 0], normed[:, :, 1]
        return jnp.where(jax.lax.stop_gradient(of_top >= of_low), of_top, of_low)


def _moments(other: Array, own: Array, total: Array, index: Array, rows: ValidRows) -> Moments:
    """Mean and variance of ``other_j + own_i`` over the edges of valid rows, in two passes."""
    cells, neighbours = index.shape[1] * index.shape[2], jnp.float32(index.shape[2])
    count = jnp.maximum(rows.axis.sum(jnp.sum(rows.valid.astype(jnp.float32))) * cells, 1.0)
    mean = summed(total + neighbours * own, rows) / count
    centred = own - spread(mean, own.shape)
    return mean, summed(squares(other, centred, index), rows) / count, count


@jax.custom_vjp
def ends(
    other: Float[Array, "b N C"], index: Int[Array, "b N K"]
) -> tuple[Float[Array, "b N C"], Float[Array, "b N C"], Float[Array, "b N C"]]:
    """Maximum, minimum and sum over the neighbours of each node, per channel."""
    return _ends(other, index)[0]


def _ends(
    other: Array, index: Array
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array, Array]]:
    def visit(found: tuple[Array, ...], place: tuple[Array, Array]) -> tuple[tuple, None]:
        top, low, total, of_top, of_low = found
        number, at = place
        near = gathered(other, at)
        above, below = near > top, near < low
        of_top, of_low = (jnp.where(c, number, x) for c, x in ((above, of_top), (below, of_low)))
        top, low = jnp.where(above, near, top), jnp.where(below, near, low)
        return (top, low, total + near, of_top, of_low), None

    numbers, places = jnp.arange(index.shape[2], dtype=jnp.int16), jnp.moveaxis(index, 2, 0)
    first = gathered(other, places[0])
    none = jnp.zeros(first.shape, jnp.int16)
    start = (first, first, first, none, none)
    (top, low, total, of_top, of_low), _ = jax.lax.scan(visit, start, (numbers[1:], places[1:]))
    return (top, low, total), (index, of_top, of_low, jnp.zeros_like(other))


def _ends_back(kept: tuple[Array, ...], cotangents: tuple[Array, ...]) -> tuple[Array, None]:
    index, of_top, of_low, zeros = kept
    to_top, to_low, to_all = cotangents

    def visit(found: Array, place: tuple[Array, Array]) -> tuple[Array, None]:
        number, at = place
        more = to_all + jnp.where(of_top == number, to_top, 0.0)
        return _scattered(found, at, more + jnp.where(of_low == number, to_low, 0.0)), None

    numbers = jnp.arange(index.shape[2], dtype=jnp.int16)
    return jax.lax.scan(visit, zeros, (numbers, jnp.moveaxis(index, 2, 0)))[0], None


ends.defvjp(_ends, _ends_back)


@jax.custom_vjp
def squares(
    other: Float[Array, "b N C"], own: Float[Array, "b N C"], index: Int[Array, "b N K"]
) -> Float[Array, "b N C"]:
    """``Σ_j (other_j + own_i)²`` over the neighbours j of i."""

    def visit(found: Array, at: Array) -> tuple[Array, None]:
        return found + (gathered(other, at) + own) ** 2, None

    return jax.lax.scan(visit, jnp.zeros_like(own), jnp.moveaxis(index, 2, 0))[0]


def _squares(other: Array, own: Array, index: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return squares(other, own, index), (other, own, index)


def _squares_back(kept: tuple[Array, Array, Array], cotangent: Array) -> tuple[Array, Array, None]:
    other, own, index = kept

    def visit(found: tuple[Array, Array], at: Array) -> tuple[tuple[Array, Array], None]:
        more = 2.0 * cotangent * (gathered(other, at) + own)
        return (_scattered(found[0], at, more), found[1] + more), None

    start = (jnp.zeros_like(other), jnp.zeros_like(own))
    found, _ = jax.lax.scan(visit, start, jnp.moveaxis(index, 2, 0))
    return (*found, None)


squares.defvjp(_squares, _squares_back)
