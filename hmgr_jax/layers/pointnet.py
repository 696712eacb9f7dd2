"""PointNet (Qi et al., CVPR 2017) without transforms: every point on its own, then the maximum."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import Rows
from hmgr_jax.layers.masking import largest
from hmgr_jax.layers.normed import NormedLinear, NormedLinears
from hmgr_jax.shapes import Array, Float

WIDTHS = (1, 1, 1, 2, 16)
"""Of its layers, in units of the first: 64, 64, 64, 128, 1024."""


class PointNet(nn.Module):
    """The encoder that stands beside DGCNN in ablations."""

    features: int = 512
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, points: Float[Array, "b N 3"], rows: Rows | None) -> Float[Array, "b D"]:
        """Encode; with ``rows`` (training) normalised by the batch."""
        sizes = tuple(times * self.width for times in WIDTHS)
        x = NormedLinears(sizes, dtype=self.dtype, name="points")(points, rows)
        return NormedLinear(self.features, dtype=self.dtype, name="out")(largest(x), rows)
