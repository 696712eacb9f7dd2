"""Contrastive losses over the score matrix of a batch, with the positives on its diagonal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.losses.mined import hardest_of
from hmgr_jax.losses.triplet import own_negatives
from hmgr_jax.shapes import Array, Bool, Float, Int

FAR = -1e9
"""The logit of a pair that does not count: finite, and so is the gradient of padded rows."""


def contrastive_hard(
    scores: Float[Array, "B B"],
    is_negative: Bool[Array, "B B"],
    valid: Bool[Array, " B"],
    *,
    margin: float,
) -> Float[Array, ""]:
    """Σ_i 1 - s_ii + [max_j s_ij - margin]_+ + [max_j s_ji - margin]_+ over negatives j.

    Args:
        scores: cosines.
        is_negative: the pairs that count, see ``losses.triplet.negatives``.
        valid: the rows whose positives count.
        margin: the score below which a negative has no loss.
    """
    found = hardest_of(scores, is_negative)
    hinges = [
        jnp.where(some, jnp.maximum(n - margin, 0.0), 0.0)
        for n, some in zip(found.negatives, found.some, strict=True)
    ]
    return jnp.sum(jnp.where(valid, 1.0 - found.positive, 0.0) + hinges[0] + hinges[1])


def infonce(
    scores: Float[Array, "B B"],
    is_negative: Bool[Array, "B B"],
    valid: Bool[Array, " B"],
    *,
    temperature: float | Float[Array, ""],
) -> Float[Array, ""]:
    """Cross entropy of the positive among the negatives of its row, and of its column (CLIP).

    Args:
        scores: scores of all pairs.
        is_negative: the pairs that count, see ``losses.triplet.negatives``; pairs that are neither
            negative nor on the diagonal, such as two captions of one picture, are left out.
        valid: the rows whose positives count.
        temperature: divides the scores; may be a traced scalar, such as a learned parameter.

    Returns:
        The mean over the valid rows and both directions.
    """
    logits = scores / temperature
    known = is_negative | jnp.eye(len(scores), dtype=bool)
    logits = jnp.where(known, logits, FAR)
    both = jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)
    each = both / 2.0 - jnp.diagonal(scores) / temperature
    return jnp.sum(jnp.where(valid, each, 0.0)) / jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)


def infonce_of_vectors(
    a: Float[Array, "b D"],
    b: Float[Array, "b D"],
    valid: Bool[Array, " b"],
    groups: Int[Array, " b"] | None,
    axis: Any,
    *,
    temperature: float | Float[Array, ""],
) -> Float[Array, ""]:
    """``infonce`` of the inner products of a batch whose rows are sharded over the devices.

    Each device scores its own rows and columns; ``axis`` is the model's ``Axis``, and the loss is
    the same on all devices.
    """
    all_a, all_b, all_valid = axis.gather((a, b, valid))
    is_negative, own = own_negatives(valid, groups, axis)
    known = is_negative | (own[:, None] == jnp.arange(len(all_a))[None, :])
    positive = jnp.sum(a * b, axis=1) / temperature

    def surprise(mine: Array, others: Array) -> Array:
        logits = jnp.where(known, einsum("ad,bd->ab", mine, others) / temperature, FAR)
        return jax.nn.logsumexp(logits, axis=1) - positive

    each = (surprise(a, all_b) + surprise(b, all_a)) / 2.0
    total = axis.sum(jnp.sum(jnp.where(valid, each, 0.0)))
    return total / jnp.maximum(jnp.sum(all_valid), 1).astype(jnp.float32)


def sigmoid_of_vectors(
    a: Float[Array, "b D"],
    b: Float[Array, "b D"],
    valid: Bool[Array, " b"],
    groups: Int[Array, " b"] | None,
    axis: Any,
    *,
    scale: Float[Array, ""],
    bias: Float[Array, ""],
) -> Float[Array, ""]:
    """SigLIP's loss: each pair on its own is classified as positive or negative.

    Each device classifies the pairs of its own rows ``a`` with all ``b``; ``axis`` is the model's
    ``Axis``. Pairs of a group are neither positive nor negative beside the diagonal.

    Returns:
        The sum over pairs of ``-log sigmoid(±(scale * a·b + bias))``, divided by the number of
        valid rows of all devices, and the same on all devices.
    """
    all_b, all_valid = axis.gather((b, valid))
    is_negative, _ = own_negatives(valid, groups, axis)
    logits = scale * einsum("ad,bd->ab", a, all_b) + bias
    positive = jax.nn.softplus(-scale * jnp.sum(a * b, axis=1) - bias)
    negative = jnp.sum(jnp.where(is_negative, jax.nn.softplus(logits), 0.0), axis=1)
    total = axis.sum(jnp.sum(jnp.where(valid, positive, 0.0) + negative))
    return total / jnp.maximum(jnp.sum(all_valid), 1).astype(jnp.float32)
