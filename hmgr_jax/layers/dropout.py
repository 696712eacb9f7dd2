"""Random numbers keyed by (seed, step, purpose, global row): equal on 1 and 8 devices."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
from flax import struct

from hmgr_jax.shapes import Array, Bool, Float, Int


@struct.dataclass
class Keys:
    """The random keys of one step on one device.

    ``base`` depends on the seed and the step and is equal on all devices; ``rows`` are the global
    batch positions of the local items (at evaluation: item numbers).
    """

    base: Array
    rows: Int[Array, " b"]

    @classmethod
    def at(cls, seed: Int[Array, ""], step: Int[Array, ""], rows: Int[Array, " b"]) -> Keys:
        """Keys of ``step`` for the items at global batch positions ``rows``."""
        return cls(jax.random.fold_in(jax.random.key(seed), step), rows)

    def named(self, purpose: str) -> Keys:
        """Keys for one purpose; the same name twice gives the same random numbers."""
        return self.replace(  # type: ignore[attr-defined]
            base=jax.random.fold_in(self.base, zlib.crc32(purpose.encode()))
        )

    def per_row(self) -> Array:
        """One key for each local item, [b]."""
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(self.base, self.rows)


def uniform_numbers(keys: Keys, count: int) -> Float[Array, "b K"]:
    """``count`` uniform numbers in [0, 1) for each row."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys.per_row())


def keep_mask(keys: Keys, shape: tuple[int, ...], rate: float) -> Bool[Array, "b *rest"]:
    """True with probability ``1 - rate``, independently for every entry of [b, *shape].

    Uses 16 random bits per entry: the rate is exact to 1/65536, at half the cost of 32 bits.
    """
    size = 1
    for extent in shape:
        size *= extent
    words = jax.vmap(lambda key: jax.random.bits(key, ((size + 1) // 2,), jnp.uint32))(
        keys.per_row()
    )
    bits = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(words.shape[0], -1)
    keep = bits[:, :size] >= jnp.uint16(min(round(rate * 65536), 65535))
    return keep.reshape(words.shape[0], *shape)


def dropout(
    x: Float[Array, "b *rest"], rate: float, keys: Keys | None, purpose: str
) -> Float[Array, "b *rest"]:
    """Inverted dropout on ``x``; the identity at rate 0 or without keys (evaluation)."""
    if keys is None or rate == 0.0:
        return x
    keep = keep_mask(keys.named(purpose), x.shape[1:], rate)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def drop_nodes(
    mask: Bool[Array, "b N"], rate: float, keys: Keys | None, purpose: str
) -> Bool[Array, "b N"]:
    """Remove nodes from ``mask`` with probability ``rate``.

    If no node is left, the first valid node is kept.
    """
    if keys is None or rate == 0.0:
        return mask
    kept = mask & keep_mask(keys.named(purpose), mask.shape[1:], rate)
    first = mask & (jnp.cumsum(mask, axis=1) == 1)
    return kept | (first & ~jnp.any(kept, axis=1, keepdims=True))
