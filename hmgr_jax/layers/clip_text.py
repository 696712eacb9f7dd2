"""The text towers of CLIP and SigLIP: Transformers over ids.

CLIP's words see those before them, and a text's vector is the state of its end-of-text mark. In
SigLIP all words see one another, padding too (texts are padded to one length), and the vector is
the state of the last place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.transformer import Encoder, Sizes, layer_norm
from hmgr_jax.layers.vit import TABLE
from hmgr_jax.shapes import Array, Bool, Float, Int


@dataclass(frozen=True)
class TextSizes:
    """Sizes of a text tower."""

    encoder: Sizes
    vocabulary: int
    positions: int
    """The largest number of tokens; SigLIP pads all texts to it."""
    projection: int | None
    """Size of the vector; None leaves the state as it is."""
    causal: bool = True
    """True for CLIP, False for SigLIP."""
    end: int | None = None
    """CLIP's end-of-text id, whose first place is taken. None takes the first place of a text's
    largest id, the convention of the first released files."""


class TextTower(nn.Module):
    """A text tower."""

    sizes: TextSizes
    dtype: Any = jnp.float32
    checkpoint: bool = False
    """As in `hmgr_jax.layers.transformer.Encoder`."""

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B L"], valid: Bool[Array, "B L"] | None = None
    ) -> tuple[Float[Array, "B L H"], Float[Array, "B E"]]:
        """States after the final norm, and each text's vector, not of unit length.

        Args:
            ids: padded at the end; CLIP's states up to the end mark do not depend on padding.
            valid: the words that others see; by default all.

        Raises:
            ValueError: more tokens than positions.
        """
        s, length = self.sizes, ids.shape[1]
        if length > s.positions:
            raise ValueError(f"a text of {length} tokens for {s.positions} positions")
        width = s.encoder.width
        words = self.param("words", TABLE, (s.vocabulary, width), jnp.float32)
        places = self.param("positions", TABLE, (s.positions, width), jnp.float32)
        x = words[ids] + places[None, :length]
        mask = jnp.tril(jnp.ones((1, 1, length, length), bool)) if s.causal else None
        if valid is not None:
            seen = valid[:, None, None, :]
            mask = seen if mask is None else mask & seen
        x = Encoder(s.encoder, self.dtype, self.checkpoint, name="encoder")(x, mask)
        states = layer_norm(s.encoder, "norm")(x)
        pooled = jnp.take_along_axis(states, self._last(ids)[:, None, None], axis=1)[:, 0]
        if s.projection is None:
            return states, pooled
        project = Linear(s.projection, not s.causal, self.dtype, name="projection")
        return states, project(pooled)

    def _last(self, ids: Array) -> Array:
        """The place of each text whose state is its vector."""
        if not self.sizes.causal:
            return jnp.full(len(ids), ids.shape[1] - 1)
        if self.sizes.end is None:
            return jnp.argmax(ids, axis=1)
        return jnp.argmax(ids == self.sizes.end, axis=1)
