"""Triplet loss of systems whose pair scoring is expensive: all negatives, then the hardest.

A loss on the hardest negatives has a gradient in only 3 B of a batch's B² pairs: the positives, and
the hardest negative of every row and column. All pairs are scored without a gradient to find them,
and the 3 B pairs are scored again with a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hmgr_jax.losses.triplet import triplet
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

Score = Callable[[Tree, Tree, Tree], Array]
TO_THE_END = 10**9
"""A warm-up of this many steps compiles only the sum over all negatives."""


class Hardest(NamedTuple):
    """Scores of the positives and of the hardest negatives of a global batch."""

    positive: Float[Array, " B"]
    negatives: tuple[Float[Array, " B"], Float[Array, " B"]]
    """The highest negative score of every row, and of every column."""
    some: tuple[Bool[Array, " B"], Bool[Array, " B"]]
    """Whether a row, or a column, has a negative; otherwise its score is undefined."""

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

    If several negatives of a row are equally hard, the first one receives the full gradient.

    Args:
        score: (params, codes [n], codes [m]) to the matrix [n, m].
        score_pairs: (params, codes [P], codes [P]) to the scores [P] of aligned pairs.
        params: parameters that both scores are differentiated by, besides the codes.
        a: this device's codes of the first modality.
        b: this device's codes of the second modality.
        is_negative: negative pairs of the global batch, see ``losses.triplet.negatives``.
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


def warmed_ranking(
    score: Score,
    score_pairs: Score,
    batch: tuple[Tree, Tree, Tree],
    is_negative: Bool[Array, "B B"],
    axis: Any,
    *,
    margin: float,
    step: Int[Array, ""],
    warmup: int,
) -> tuple[Float[Array, ""], Hardest]:
    """The triplet loss, and the scores of the hardest negatives.

    The loss is the sum over all negatives before step ``warmup``, and over the hardest negatives
    from then on. The scores of the hardest negatives are returned in both phases, so that their
    triplet loss shows the plateau 2 · margin · B during the warm-up too.

    Args:
        score: (params, codes [n], codes [m]) to the matrix [n, m].
        score_pairs: (params, codes [P], codes [P]) to the scores [P] of aligned pairs.
        batch: params, and this device's codes of both modalities.
        is_negative: negative pairs of the global batch, see ``losses.triplet.negatives``.
        axis: the model's ``Axis``.
        margin: required difference of a positive and a negative score.
        step: the training step.
        warmup: number of steps; 0 and ``TO_THE_END`` compile one of the two losses only.
    """

    def hardest() -> tuple[Array, Hardest]:
        found = mined_scores(score, score_pairs, *batch, is_negative, axis)
        return found.triplet(margin), found

    def all_negatives() -> tuple[Array, Hardest]:
        params, images, texts = batch
        scores = axis.pair_rows(lambda a, b: score(params, a, b), images, texts)
        total = triplet(scores, is_negative, margin=margin, hard=False)
        return total, hardest_of(scores, is_negative)

    if 0 < warmup < TO_THE_END:
        return jax.lax.cond(step >= warmup, hardest, all_negatives)
    return all_negatives() if warmup else hardest()
