"""The picture towers of CLIP (Radford et al., ICML 2021) and SigLIP (Zhai et al., ICCV 2023).

Vision Transformers (Dosovitskiy et al., ICLR 2021) over square patches of pictures of one size.
CLIP has a class token, a norm before the blocks, and a projection of the normed class token. SigLIP
pools the normed patches by a learned query, and projects nothing; so does SigLIP 2 at fixed size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.linear import Linear, einsum
from hmgr_jax.layers.transformer import MLP, Attention, Encoder, Sizes, layer_norm
from hmgr_jax.shapes import Array, Float

TABLE = nn.initializers.normal(0.02)
"""Initial values of tables and tokens."""


@dataclass(frozen=True)
class PictureSizes:
    """Sizes of a picture tower; raises ``ValueError`` if a patch is larger than the picture."""

    encoder: Sizes
    image: int
    """Side of the pictures in pixels."""
    patch: int
    """Side of a patch in pixels; what is left at the edges is cut off."""
    projection: int | None = None
    """Size of CLIP's vector; None for SigLIP."""

    def __post_init__(self) -> None:
        if not 0 < self.patch <= self.image:
            raise ValueError(f"a patch of {self.patch} pixels in a picture of {self.image}")

    @property
    def grid(self) -> int:
        """Patches in a row."""
        return self.image // self.patch


class Seen(NamedTuple):
    """What a tower makes of pictures."""

    hidden: Float[Array, "B L H"]
    """States after the last block; CLIP's class token comes first."""
    patches: Float[Array, "B N H"]
    """States of the patches after the final norm, row by row."""
    vector: Float[Array, "B E"]
    """The picture's vector, not of unit length."""


class ViT(nn.Module):
    """A picture tower."""

    sizes: PictureSizes
    dtype: Any = jnp.float32
    checkpoint: bool = False
    """As in `hmgr_jax.layers.transformer.Encoder`."""

    @nn.compact
    def __call__(self, pixels: Float[Array, "B S S 3"]) -> Seen:
        """Encode normalised pictures; raises ``ValueError`` for pictures of another size."""
        s, of = self.sizes, self.sizes.encoder
        if pixels.shape[1:] != (s.image, s.image, 3):
            raise ValueError(f"pictures {pixels.shape[1:]} for a tower of {s.image} pixels")
        x = Linear(of.width, s.projection is None, self.dtype, name="embed")(self._cut(pixels))
        if s.projection is not None:
            token = self.param("class", TABLE, (of.width,), jnp.float32)
            first = jnp.broadcast_to(token[None, None], (len(x), 1, of.width))
            x = jnp.concatenate([first, x], axis=1)
        x = x + self.param("positions", TABLE, x.shape[1:], jnp.float32)[None]
        if s.projection is not None:
            x = layer_norm(of, "first_norm")(x)
        hidden = Encoder(of, self.dtype, self.checkpoint, name="encoder")(x)
        normed = layer_norm(of, "norm")(hidden)
        if s.projection is None:
            return Seen(hidden, normed, AttentionPool(of, self.dtype, name="pool")(normed))
        project = Linear(s.projection, use_bias=False, dtype=self.dtype, name="projection")
        return Seen(hidden, normed[:, 1:], project(normed[:, 0]))

    def _cut(self, pixels: Array) -> Array:
        """The pixels of each patch, by row, column and colour: [B, N, patch * patch * 3]."""
        n, p = self.sizes.grid, self.sizes.patch
        x = pixels[:, : n * p, : n * p].reshape(len(pixels), n, p, n, p, 3)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(len(pixels), n * n, p * p * 3)


class AttentionPool(nn.Module):
    """SigLIP's head: a learned query attends to all patches, and an MLP updates the result."""

    sizes: Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N H"]) -> Float[Array, "B H"]:
        """Pool the patches of each picture."""
        probe = self.param("probe", TABLE, (self.sizes.width,), jnp.float32)
        query = jnp.broadcast_to(probe[None, None], (len(x), 1, self.sizes.width))
        y = Attention(self.sizes, self.dtype, name="attention")(query, x)[:, 0]
        return y + MLP(self.sizes, self.dtype, name="mlp")(layer_norm(self.sizes, "norm")(y))


def scores(
    pictures: Float[Array, "B E"],
    texts: Float[Array, "T E"],
    scale: Float[Array, ""],
    bias: Float[Array, ""] | None = None,
) -> Float[Array, "B T"]:
    """Logits of unit vectors: cosines times ``exp(scale)``, and SigLIP's bias."""
    found = einsum("be,te->bt", pictures, texts) * jnp.exp(scale)
    return found if bias is None else found + bias
