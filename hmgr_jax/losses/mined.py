"""The hardest negatives of a batch, for systems whose pair scoring is expensive.

Only 3 B of a batch's B² pairs have a gradient: the positives, and the hardest negative of every row
and column. All pairs are scored without a gradient to find them, and the 3 B are scored again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hmgr_jax.shapes import Array, Bool, Float, Tree

Score = Callable[[Tree, Tree, Tree], Array]


class Hardest(NamedTuple):
    """Scores of the positives and of the hardest negatives of a global batch."""

    positive: Float[Array, " B"]
    negatives: tuple[Float[Array, " B"], Float[Array, " B"]]
    """The highest negative of every row, and of every column."""
    some: tuple[Bool[Array, " B"], Bool[Array, " B"]]
    """Whether a row, or a column, has a negative; elsewhere its score is undefined."""

    def triplet(self, margin: float) -> Float[Array, ""]:
        """Sum of the hinges of every hardest negative against the positive."""
        hinges = [
            jnp.where(some, jnp.maximum(margin + n - self.positive, 0.0), 0.0)
            for n, some in zip(self.negatives, self.some, strict=True)
        ]
        return jnp.sum(hinges[0]) + jnp.sum(hinges[1])

    def scaled(self, factor: float) -> Hardest:
        """All scores times ``factor`` > 0."""
        rows, columns = self.negatives
        return Hardest(self.positive * factor, (rows * factor, columns * factor), self.some)


def hardest_of(scores: Float[Array, "B B"], is_negative: Bool[Array, "B B"]) -> Hardest:
    """The hardest negatives of a score matrix, whose positives are on the diagonal."""
    found = jnp.where(is_negative, scores, -jnp.inf)
    some = jnp.any(is_negative, axis=1), jnp.any(is_negative, axis=0)
    highest = [jnp.where(any_, jnp.max(found, axis=1 - i), 0.0) for i, any_ in enumerate(some)]
    return Hardest(jnp.diagonal(scores), (highest[0], highest[1]), some)


def mined_scores(
    score: Score,
    score_pairs: Score,
    params: Tree,
    a: Tree,
    b: Tree,
    is_negative: Bool[Array, "B B"],
    axis: Any,
) -> Hardest:
    """``hardest_of(score(params, a, b), is_negative)``, with the same value and gradient.

    Where several negatives of a row are equally hard, the first of them gets the whole gradient.

    Args:
        score: (params, codes [n], codes [m]) to the matrix [n, m].
        score_pairs: (params, codes [P], codes [P]) to the scores [P] of aligned pairs.
        params: parameters that both scores are differentiated by, besides the codes.
        a: this device's codes of the first modality.
        b: this device's codes of the second modality.
        is_negative: of the global batch, see ``losses.triplet.negatives``.
        axis: the model's ``Axis``; each device scores the pairs of its own rows and columns again.
    """
    still = jax.lax.stop_gradient((params, a, b))
    scores = axis.pair_rows(lambda x, y: score(still[0], x, y), still[1], still[2])
    found = jnp.where(is_negative, scores, -jnp.inf)
    size = is_negative.shape[0] // axis.size
    own = axis.index() * size + jnp.arange(size)
    rows = jnp.concatenate([own, own, jnp.argmax(found, axis=0)[own]])
    columns = jnp.concatenate([own, jnp.argmax(found, axis=1)[own], own])
    all_a, all_b = axis.gather((a, b))
    again = score_pairs(
        params,
        jax.tree.map(lambda x: x[rows], all_a),
        jax.tree.map(lambda x: x[columns], all_b),
    )
    positive, *negative = axis.gather(tuple(again.reshape(3, size)))
    some = jnp.any(is_negative, axis=1), jnp.any(is_negative, axis=0)
    return Hardest(positive, (negative[0], negative[1]), some)
