"""The kNN marginal similarity: items are compared by their neighbours in training (GPLDAN 3.6).

With s = (1 + cosine) / 2, an item is its k nearest training vectors of both modalities with weights
s that sum to one, P; then ``Sim = P_v H P_tᵀ``, H being s between training vectors and 1 between
the members of a pair. H is low-rank but for the pairs, so that the whole is an inner product.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Float, Int


@struct.dataclass
class Neighbourhood:
    """The training items that others are compared by: N images and M texts, as unit vectors."""

    images: Float[Array, "N D"]
    texts: Float[Array, "M D"]
    owner: Int[Array, " M"]
    """The image of every text."""
    missing: Float[Array, " M"]
    """1 - s of every text and its image: what H has more than s there."""

    @classmethod
    def of(cls, images: Any, texts: Any, owner: Any) -> Neighbourhood:
        """From unit vectors [N, D] and [M, D] of training items and the image [M] of every text."""
        images, texts, owner = map(jnp.asarray, (images, texts, owner))
        close = (1.0 + jnp.sum(images[owner] * texts, axis=1)) / 2.0
        return cls(images, texts, owner, 1.0 - close)

    def vectors(self, x: Float[Array, "n D"], count: int, *, first: bool) -> Float[Array, "n E"]:
        """Vectors of 1 + D + 2 N numbers whose inner product is the marginal similarity.

        Args:
            x: unit vectors.
            count: k, how many neighbours an item has.
            first: whether these are the first (image) side of the product.
        """
        everything = jnp.concatenate([self.images, self.texts])
        close = (1.0 + einsum("nd,md->nm", x, everything)) / 2.0
        near, places = jax.lax.top_k(close, count)
        near = near / jnp.maximum(jnp.sum(near, axis=1, keepdims=True), 1e-12)
        rows = jnp.arange(len(x))[:, None]
        weights = jnp.zeros_like(close).at[rows, places].set(near)
        mean = einsum("nm,md->nd", weights, everything)
        own, of_texts = jnp.split(weights, [len(self.images)], axis=1)
        folded = jnp.zeros_like(own).at[:, self.owner].add(of_texts * self.missing[None, :])
        half = jnp.sqrt(jnp.float32(0.5))
        ones = jnp.ones((len(x), 1), jnp.float32)
        sides = (own, folded) if first else (folded, own)
        return jnp.concatenate([half * ones, half * mean, *sides], axis=1)
