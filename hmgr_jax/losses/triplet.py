"""Triplet ranking over the score matrix of a batch (VSE++, BMVC 2018; SCAN, ECCV 2018)."""

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
        margin: required difference of a positive and a negative score.
        hard: only the hardest negative of each row and column (VSE++), else the sum over all; may
            be traced, so that one program serves a warm-up on the sum.

    Returns:
        the sum over the batch, not the mean: the clipping norm of the SCAN family assumes a sum.
        If all scores are equal, it is 2 · margin · B under ``hard``.
    """
    positive = jnp.diagonal(scores)
    rows = jnp.where(is_negative, jnp.maximum(margin + scores - positive[:, None], 0.0), 0.0)
    columns = jnp.where(is_negative, jnp.maximum(margin + scores - positive[None, :], 0.0), 0.0)
    hardest = jnp.sum(jnp.max(rows, axis=1)) + jnp.sum(jnp.max(columns, axis=0))
    if hard is True:
        return hardest
    return jnp.where(hard, hardest, jnp.sum(rows) + jnp.sum(columns))


def own_negatives(
    valid: Bool[Array, " b"], groups: Int[Array, " b"] | None, axis: Any
) -> tuple[Bool[Array, "b B"], Int[Array, " b"]]:
    """The rows of ``negatives`` of this device, and their numbers in the global batch."""
    own = axis.index() * len(valid) + jnp.arange(len(valid))
    all_valid = axis.gather(valid)
    both = valid[:, None] & all_valid[None, :]
    if groups is None:
        return both & (own[:, None] != jnp.arange(len(all_valid))[None, :]), own
    return both & (groups[:, None] != axis.gather(groups)[None, :]), own


def constant_triplet(
    valid: Bool[Array, " b"],
    groups: Int[Array, " b"] | None,
    axis: Any,
    *,
    margin: float,
    hard: bool | Bool[Array, ""],
) -> Float[Array, ""]:
    """``triplet`` of a batch whose scores are all equal, the same on all devices."""
    is_negative, _ = own_negatives(valid, groups, axis)
    number = jnp.sum(is_negative, axis=1)
    each = jnp.where(hard, jnp.minimum(number, 1), number)
    return 2.0 * margin * axis.sum(jnp.sum(each)).astype(jnp.float32)


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
    """``triplet`` of the inner products of a batch whose rows are sharded over the devices.

    Each device scores its own rows and columns, so time and memory per device do not grow with the
    square of the batch; ``axis`` is the model's ``Axis``, and the loss is the same on all devices.
    """
    all_a, all_b = axis.gather((a, b))
    is_negative, _ = own_negatives(valid, groups, axis)
    positive = jnp.sum(a * b, axis=1)

    def own_hinges(mine: Array, others: Array) -> Array:
        scores = einsum("ad,bd->ab", mine, others)
        hinges = jnp.maximum(margin + scores - positive[:, None], 0.0)
        hinges = jnp.where(is_negative, hinges, 0.0)
        hardest = jnp.sum(jnp.max(hinges, axis=1))
        return hardest if hard is True else jnp.where(hard, hardest, jnp.sum(hinges))

    return axis.sum(own_hinges(a, all_b) + own_hinges(b, all_a))
