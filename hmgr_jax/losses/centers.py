"""Center hinge: vectors close to the centre of their own group, far from all others (ReSG 5.6)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import l2n
from hmgr_jax.shapes import Array, Bool, Float, Int

VARIANTS = ("triplet", "pull")


def center_hinge(
    a: Float[Array, "b D"],
    b: Float[Array, "b D"],
    valid: Bool[Array, " b"],
    groups: Int[Array, " b"],
    axis: Any,
    *,
    margin: float = 0.2,
    variant: str = "triplet",
    stop_gradient: bool = False,
) -> Float[Array, ""]:
    """Hinges of all vectors of a batch, of which every device has some rows, summed.

    The centre of a group is the unit mean of all its vectors of both modalities in the global
    batch. ``triplet``: [margin + |z - own centre|² - |z - nearest other centre|²]_+, where there is
    another group; ``pull``: [|z - own centre|² - margin]_+.

    Args:
        a: unit vectors of the first modality.
        b: unit vectors of the second modality, of the same rows.
        valid: rows that count.
        groups: of each row; equal ones share a centre.
        axis: the model's ``Axis``; the result is the same number on all devices.
        margin: m_c.
        variant: one of `VARIANTS`.
        stop_gradient: take the centres as constants.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {variant!r}")
    sums, all_valid, all_groups = axis.gather((a + b, valid, groups))
    same = (groups[:, None] == all_groups[None, :]) & all_valid[None, :]
    counts = 2 * jnp.maximum(jnp.sum(same, axis=1), 1).astype(jnp.float32)
    own = l2n(einsum("bj,jd->bd", same.astype(jnp.float32), sums) / counts[:, None])
    own = jax.lax.stop_gradient(own) if stop_gradient else own
    others = axis.gather(own)
    is_other = all_valid[None, :] & ~same

    def of_own(z: Array) -> Array:
        near = _distance(jnp.sum(z * own, axis=1))
        if variant == "pull":
            hinges = jnp.maximum(near - margin, 0.0)
        else:
            far = _distance(einsum("bd,jd->bj", z, others))
            nearest = jnp.min(jnp.where(is_other, far, jnp.inf), axis=1)
            hinges = jnp.where(
                jnp.any(is_other, axis=1), jnp.maximum(margin + near - nearest, 0.0), 0.0
            )
        return jnp.sum(jnp.where(valid, hinges, 0.0))

    return axis.sum(of_own(a) + of_own(b))


def _distance(cosine: Array) -> Array:
    """Squared, between unit vectors; no root, so no infinite gradient where they agree."""
    return jnp.maximum(2.0 - 2.0 * cosine, 0.0)
