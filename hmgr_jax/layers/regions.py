"""From region features to nodes (spec 1.2), with the care that few training images need."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import Linear, update_norm
from hmgr_jax.layers.masking import l2n
from hmgr_jax.shapes import Array, Float

SCALES = ("none", "sqrt", "l2", "sqrt_l2")
EMBEDDINGS = ("linear", "mlp")


def scale_features(x: Array, kind: str) -> Float[Array, "B R F"]:
    """Raw features as they are, their signed square root, unit length, or both."""
    if kind not in SCALES:
        raise ValueError(f"region_scale is one of {', '.join(SCALES)}, not {kind!r}")
    x = x.astype(jnp.float32)
    if kind.startswith("sqrt"):
        # The root of 1e-12 keeps the gradient of a zero feature finite.
        x = jnp.sign(x) * jnp.sqrt(jnp.abs(x) + 1e-12)
    return l2n(x) if kind.endswith("l2") else x


class RegionEmbedding(nn.Module):
    """A linear map, or a linear map and a residual per-region MLP (no region sees another)."""

    features: int
    kind: str = "linear"
    hidden: int = 0
    """Width of the MLP, 0 for ``features``. 4 · features has the size of two graph layers."""
    gain: float = 0.0
    """Of the norm on the MLP's output, at the start."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B R F"]) -> Float[Array, "B R D"]:
        """Embed every region on its own."""
        if self.kind not in EMBEDDINGS:
            raise ValueError(f"region_embedding is one of {EMBEDDINGS}, not {self.kind!r}")
        x = Linear(self.features, dtype=self.dtype, name="linear")(x)
        if self.kind == "linear":
            return x
        hidden = Linear(self.hidden or self.features, dtype=self.dtype, name="hidden")(x)
        update = Linear(self.features, dtype=self.dtype, name="out")(jax.nn.relu(hidden))
        return x + update_norm(self.gain)(update)
