"""Words of many captions packed into rows without padding; no caption is split over rows."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hmgr_jax.shapes import Array, Bool, Int


class Packing(NamedTuple):
    """Positions of the words of many captions, in ``rows`` of ``size`` words."""

    source: Int[Array, "rows size"]
    """Position in the flattened [captions · L] words; 0 where empty."""
    caption: Int[Array, "rows size"]
    """Index of the caption; -1 where empty."""
    valid: Bool[Array, "rows size"]


def pack(lengths: Int[Array, " C"], longest: int, size: int) -> Packing:
    """Pack captions into rows of ``size`` words, in order and without splitting a caption.

    Args:
        lengths: words of every caption, at most ``longest``.
        longest: the padded length L of the captions.
        size: words of a row, at least ``longest``.

    Returns:
        the number of rows that captions of full length need; the last rows may be empty.
    """
    count = lengths.shape[0]
    rows = -(-count // (size // longest))

    def place(last: tuple[Array, Array], length: Array) -> tuple[tuple[Array, Array], Array]:
        row, end = last
        fits = end + length <= size
        row, start = jnp.where(fits, row, row + 1), jnp.where(fits, end, 0)
        return (row, start + length), row * size + start

    zero = jnp.zeros((), lengths.dtype)
    _, start = jax.lax.scan(place, (zero, zero), lengths)
    word = jnp.arange(longest)[None, :]
    valid = word < lengths[:, None]
    slot = jnp.where(valid, start[:, None] + word, rows * size).reshape(-1)
    source = jnp.full(rows * size, -1).at[slot].set(jnp.arange(count * longest), mode="drop")
    source = source.reshape(rows, size)
    filled = source >= 0
    caption = jnp.where(filled, source // longest, -1)
    return Packing(jnp.maximum(source, 0), caption, filled)
