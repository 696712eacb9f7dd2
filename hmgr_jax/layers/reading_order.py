"""The order in which a recurrent read-out meets the regions of a picture (ReSG spec 5.4)."""

from __future__ import annotations

import jax.numpy as jnp

from hmgr_jax.shapes import Array, Bool, Float

ORDERS = ("file", "left_to_right", "area")


def reading_rank(boxes: Float[Array, "B N 4"], order: str) -> Float[Array, "B N"]:
    """What regions are sorted by: the middle of their boxes, or their size, the largest first.

    Args:
        boxes: x1, y1, x2, y2 in 0..1.
        order: ``left_to_right`` or ``area``.
    """
    if order == "left_to_right":
        return boxes[..., 0] + boxes[..., 2]
    if order == "area":
        return -(boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    raise ValueError(f"order is left_to_right or area, not {order!r}")


def in_order(
    x: Float[Array, "B N D"], mask: Bool[Array, "B N"], rank: Float[Array, "B N"] | None = None
) -> tuple[Float[Array, "B N D"], Bool[Array, "B N"]]:
    """Nodes and mask with the valid nodes first, by ``rank`` or as they stood."""
    found = jnp.zeros(mask.shape, jnp.float32) if rank is None else rank
    order = jnp.argsort(jnp.where(mask, found, jnp.inf), axis=1, stable=True)
    return (
        jnp.take_along_axis(x, order[:, :, None], axis=1),
        jnp.take_along_axis(mask, order, axis=1),
    )
