"""Region features to nodes: scaling, dropout and embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.dropout import Keys, drop_nodes, dropout
from hmgr_jax.layers.linear import Linear, einsum, update_norm
from hmgr_jax.layers.masking import l2n, length_mask
from hmgr_jax.shapes import Array, Bool, Float

SCALES = ("none", "sqrt", "l2", "sqrt_l2")
EMBEDDINGS = ("linear", "mlp", "weight_norm")


def scale_features(x: Array, kind: str) -> Float[Array, "*items F"]:
    """Raw features, signed square roots, unit vectors, or unit vectors of square roots."""
    if kind not in SCALES:
        raise ValueError(f"region_scale must be one of {', '.join(SCALES)}, got {kind!r}")
    x = x.astype(jnp.float32)
    if kind.startswith("sqrt"):
        # 1e-12 keeps the gradient at 0 finite.
        x = jnp.sign(x) * jnp.sqrt(jnp.abs(x) + 1e-12)
    return l2n(x) if kind.endswith("l2") else x


def read_regions(
    items: Mapping[str, Array],
    scale: str,
    region_dropout: float,
    feature_dropout: float,
    keys: Keys | None,
) -> tuple[Float[Array, "B R F"], Bool[Array, "B R"]]:
    """Scaled features and the mask of regions, after both dropouts if ``keys`` is given."""
    x = scale_features(items["regions"], scale)
    mask = length_mask(items["n_regions"], x.shape[1])
    mask = drop_nodes(mask, region_dropout, keys, "regions")
    return dropout(x, feature_dropout, keys, "features"), mask


class RegionEmbedding(nn.Module):
    """Map every region on its own: linear, with weight norm, or with a residual MLP.

    Weight norm is g V / |V| with one length g for the full matrix (the ``weight_norm`` encoder of
    SCAN and IMRAM).
    """

    features: int
    kind: str = "linear"
    hidden: int = 0
    """Width of the MLP; 0: ``features``. 4 · features has the size of two graph layers."""
    gain: float = 0.0
    """Initial gain of the norm on the output of the MLP."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B R F"]) -> Float[Array, "B R D"]:
        """Embed every region."""
        if self.kind not in EMBEDDINGS:
            raise ValueError(f"region_embedding must be one of {EMBEDDINGS}, got {self.kind!r}")
        if self.kind == "weight_norm":
            return WeightNormLinear(self.features, dtype=self.dtype, name="linear")(x)
        x = Linear(self.features, dtype=self.dtype, name="linear")(x)
        if self.kind == "linear":
            return x
        hidden = Linear(self.hidden or self.features, dtype=self.dtype, name="hidden")(x)
        update = Linear(self.features, dtype=self.dtype, name="out")(jax.nn.relu(hidden))
        return x + update_norm(self.gain)(update)


class WeightNormLinear(nn.Module):
    """``x (g V / |V|) + b`` with a scalar g, which starts as |V| (Frobenius)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B R F"]) -> Float[Array, "B R D"]:
        """Apply the map."""
        init = nn.initializers.xavier_uniform()
        kernel = self.param("kernel", init, (x.shape[-1], self.features), jnp.float32)
        length = jnp.sqrt(jnp.sum(kernel**2))
        scale = self.param("scale", lambda _: length)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        y = einsum("brf,fd->brd", x, kernel * (scale / length), dtype=self.dtype)
        return y + bias[None, None, :]
