"""Contrastive losses over the score matrix of a batch, with the positives on its diagonal."""

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
        The sum over the batch and both directions.
    """
    logits = scores / temperature
    known = is_negative | jnp.eye(len(scores), dtype=bool)
    logits = jnp.where(known, logits, -1e9)  # finite, and so is the gradient of padded rows
    positive = 2.0 * jnp.diagonal(scores) / temperature
    both = jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)
    return jnp.sum(jnp.where(valid, both - positive, 0.0))
