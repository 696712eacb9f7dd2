"""Contrastive losses over a batch's score matrix, beside the triplet loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hmgr_jax.losses.mined import hardest_of
from hmgr_jax.shapes import Array, Bool, Float


def contrastive_hard(
    scores: Float[Array, "B B"],
    is_negative: Bool[Array, "B B"],
    valid: Bool[Array, " B"],
    *,
    margin: float,
) -> Float[Array, ""]:
    """Positives up to 1, and the hardest negative of every row and column down to ``margin``.

    Args:
        scores: cosines, of positives on the diagonal.
        is_negative: the pairs that count, see ``losses.triplet.negatives``.
        valid: the rows whose positives count.
        margin: the score below which a negative costs nothing.

    Returns:
        The sum over the batch of ``1 - S+`` and both ``max(S- - margin, 0)``.
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
    temperature: float,
) -> Float[Array, ""]:
    """Cross entropy of the positive among the negatives of its row, and of its column.

    Args:
        scores: with the positives on the diagonal.
        is_negative: the pairs that count, see ``losses.triplet.negatives``; other pairs, as those
            of another caption of the same picture, are neither.
        valid: the rows whose positives count.
        temperature: that scores are divided by.

    Returns:
        The sum over the batch and both directions.
    """
    logits = scores / temperature
    known = is_negative | jnp.eye(len(scores), dtype=bool)
    logits = jnp.where(known, logits, -1e9)  # finite: so is the gradient of a row of padding
    positive = 2.0 * jnp.diagonal(scores) / temperature
    both = jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)
    return jnp.sum(jnp.where(valid, both - positive, 0.0))
