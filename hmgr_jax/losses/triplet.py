"""Triplet ranking over a batch's score matrix (VSE++, SCAN; HMGR spec 1.4)."""

from __future__ import annotations

import jax.numpy as jnp

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
