"""Encoders of point clouds: DGCNN (Wang et al., ACM TOG 2019) and PointNet (Qi et al., CVPR 2017).

DGCNN: points [B, N, 3] -> four EdgeConvs, each over the nearest neighbours in its input space
[B, N, 64 | 64 | 128 | 256] -> joined [B, N, 512] -> [B, N, 1024] -> maximum and mean [B, 2048]
-> [B, D]. PointNet, without transforms: each point on its own, then the maximum.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import ValidRows
from hmgr_jax.layers.edges import NeighbourMax, NormedLinear, NormedLinears, as_torch, nearest
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import largest
from hmgr_jax.shapes import Array, Float, Int

SLOPE = 0.2
"""Slope of DGCNN's leaky ReLUs."""
EDGE_WIDTHS = (1, 1, 2, 4)
"""Channels of the EdgeConvs, in units of ``width``."""
POINT_WIDTHS = (1, 1, 1, 2, 16)
"""Channels of PointNet's layers, in units of ``width``: 64, 64, 64, 128, 1024."""


class EdgeConv(nn.Module):
    """``max_j LeakyReLU(BN([x_j - x_i ; x_i] W))`` over the k nearest points, including itself.

    With W = [W_a ; W_b] the product is ``x_j W_a + x_i (W_b - W_a)``, over points and not over
    edges.
    """

    features: int
    neighbours: int = 20

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b N C"],
        rows: ValidRows | None,
        index: Int[Array, "b N K"] | None = None,
    ) -> Float[Array, "b N D"]:
        """Convolve over the graph of nearest neighbours, or over the graph ``index``."""
        size = x.shape[-1]
        kernel = self.param("kernel", as_torch, (2 * size, self.features), jnp.float32)
        both = jnp.concatenate([kernel[:size], kernel[size:] - kernel[:size]], axis=1)
        flat = einsum("nc,cd->nd", x.reshape(-1, size), both)
        other, own = jnp.split(flat.reshape(*x.shape[:2], -1), 2, axis=-1)
        index = nearest(x, self.neighbours) if index is None else index
        return NeighbourMax(SLOPE, name="edges")(other, own, index, rows)


class DGCNN(nn.Module):
    """The encoder, to vectors of length ``features``."""

    features: int = 512
    width: int = 64
    """Channels of the first EdgeConv."""
    neighbours: int = 20
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, points: Float[Array, "b N 3"], rows: ValidRows | None
    ) -> Float[Array, "b D"]:
        """Encode; with ``rows`` (training) batch norm uses batch statistics."""
        if points.shape[1] < self.neighbours:
            raise ValueError(
                f"a cloud of {points.shape[1]} points has no {self.neighbours} neighbours per point"
            )
        x, found = points, []
        for number, times in enumerate(EDGE_WIDTHS, start=1):
            size = times * self.width
            # Always float32: bfloat16 rounding would change the neighbours of the next layer.
            x = EdgeConv(size, self.neighbours, name=f"conv{number}")(x, rows)
            found.append(x)
        x = jnp.concatenate(found, axis=-1)
        conv = NormedLinear(16 * self.width, slope=SLOPE, dtype=self.dtype, name="conv5")
        x = conv(x, rows)
        whole = jnp.concatenate([largest(x), jnp.mean(x, axis=1)], axis=-1)
        return NormedLinear(self.features, dtype=self.dtype, name="out")(whole, rows)


class PointNet(nn.Module):
    """The encoder that replaces DGCNN in ablations."""

    features: int = 512
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, points: Float[Array, "b N 3"], rows: ValidRows | None
    ) -> Float[Array, "b D"]:
        """Encode; with ``rows`` (training) batch norm uses batch statistics."""
        sizes = tuple(times * self.width for times in POINT_WIDTHS)
        x = NormedLinears(sizes, dtype=self.dtype, name="points")(points, rows)
        return NormedLinear(self.features, dtype=self.dtype, name="out")(largest(x), rows)
