"""Triplet ranking over a batch's score matrix (VSE++, SCAN; HMGR spec 1.4)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Bool, Float, Int


def negatives(
    valid: Bool[Array, " B"], groups: Int[Array, " B"] | None = None
) -> Bool[Array, "B B"]:
    """Pairs that count as negatives: both rows valid, not the diagonal, not the same group."""
    both = valid[:, None] & valid[None, :]
    if groups is None:
        return both & ~jnp.eye(valid.shape[0], dtype=bool)
    return both & (groups[:, None] != groups[None, :])


def triplet(
    scores: Float[Array, "B B"],
    is_negative: Bool[Array, "B B"],
    *,
    margin: float = 0.2,
    hard: bool | Bool[Array, ""] = True,
) -> Float[Array, ""]:
    """Hinge on every row and column of ``scores``, whose positives are on the diagonal.

    Args:
        scores: S[i, j] of item i of the first modality and item j of the second.
        is_negative: the pairs that count, see ``negatives``.
        margin: by how much a positive should exceed a negative.
        hard: only the hardest negative of each row and column (VSE++), else the sum over all; may
            be traced, so that a warm-up on the sum needs no second compilation.

    Returns:
        The sum over the batch, not the mean: the gradient's clipping norm of the SCAN family
        counts on that. Equal scores everywhere give 2 · margin · B under ``hard``.
    """
    positive = jnp.diagonal(scores)
    rows = jnp.where(is_negative, jnp.maximum(margin + scores - positive[:, None], 0.0), 0.0)
    columns = jnp.where(is_negative, jnp.maximum(margin + scores - positive[None, :], 0.0), 0.0)
    hardest = jnp.sum(jnp.max(rows, axis=1)) + jnp.sum(jnp.max(columns, axis=0))
    if hard is True:
        return hardest
    return jnp.where(hard, hardest, jnp.sum(rows) + jnp.sum(columns))


def triplet_of_vectors(
    a: Float[Array, "b D"],
    b: Float[Array, "b D"],
    valid: Bool[Array, " b"],
    groups: Int[Array, " b"] | None,
    axis: Any,
    *,
    margin: float = 0.2,
    hard: bool | Bool[Array, ""] = True,
) -> Float[Array, ""]:
    """``triplet`` of the inner products of a batch, of which every device has some rows.

    A device scores its own rows and its own columns, so that neither time nor memory of a device
    grows with the square of the batch; ``axis`` is the model's ``Axis``, and the loss is the same
    number on all devices.
    """
    all_a, all_b, all_valid = axis.gather((a, b, valid))
    own = axis.index() * len(a) + jnp.arange(len(a))
    is_negative = valid[:, None] & all_valid[None, :]
    if groups is None:
        is_negative &= own[:, None] != jnp.arange(len(all_a))[None, :]
    else:
        is_negative &= groups[:, None] != axis.gather(groups)[None, :]
    positive = jnp.sum(a * b, axis=1)

    def of_own(mine: Array, others: Array) -> Array:
        scores = einsum("ad,bd->ab", mine, others)
        hinges = jnp.maximum(margin + scores - positive[:, None], 0.0)
        hinges = jnp.where(is_negative, hinges, 0.0)
        hardest = jnp.sum(jnp.max(hinges, axis=1))
        return hardest if hard is True else jnp.where(hard, hardest, jnp.sum(hinges))

    return axis.sum(of_own(a, all_b) + of_own(b, all_a))
