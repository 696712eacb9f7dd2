"""Center hinge: pull vectors to the center of their group, away from other centers (ReSG)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import l2n
from hmgr_jax.shapes import Array, Bool, Float, Int


def center_hinge(
    a: Float[Array, "b D"],
    b: Float[Array, "b D"],
    valid: Bool[Array, " b"],
    groups: Int[Array, " b"],
    axis: Any,
    *,
    margin: float = 0.2,
) -> Float[Array, ""]:
    """Sum of [margin + |z - own center|² - |z - nearest other center|²]_+ over a global batch.

    The center of a group is the unit mean of all its vectors of both modalities in the global
    batch, and has a gradient. The hinge is 0 if the batch has no other group.

    Args:
        a: unit vectors of the first modality, the rows of this device.
        b: unit vectors of the second modality, of the same rows.
        valid: rows that are not padding.
        groups: the group of each row; rows of equal groups share a center.
        axis: the model's ``Axis``; the result is the same number on all devices.
        margin: m_c.
    """
    sums, all_valid, all_groups = axis.gather((a + b, valid, groups))
    same = (groups[:, None] == all_groups[None, :]) & all_valid[None, :]
    counts = 2 * jnp.maximum(jnp.sum(same, axis=1), 1).astype(jnp.float32)
    own = l2n(einsum("bj,jd->bd", same.astype(jnp.float32), sums) / counts[:, None])
    others = axis.gather(own)
    is_other = all_valid[None, :] & ~same

    def sum_hinges(z: Array) -> Array:
        near = _squared_distance(jnp.sum(z * own, axis=1))
        far = _squared_distance(einsum("bd,jd->bj", z, others))
        nearest = jnp.min(jnp.where(is_other, far, jnp.inf), axis=1)
        hinges = jnp.where(
            jnp.any(is_other, axis=1), jnp.maximum(margin + near - nearest, 0.0), 0.0
        )
        return jnp.sum(jnp.where(valid, hinges, 0.0))

    return axis.sum(sum_hinges(a) + sum_hinges(b))


def _squared_distance(cosine: Array) -> Array:
    """Squared distance of unit vectors; without a root, its gradient is finite at 0."""
    return jnp.maximum(2.0 - 2.0 * cosine, 0.0)
