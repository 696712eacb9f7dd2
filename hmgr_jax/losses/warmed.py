"""Triplet loss of systems that score pairs: over all negatives at first, then the hardest."""

from __future__ import annotations

from typing import Any

import jax

from hmgr_jax.losses.mined import Hardest, Score, hardest_of, mined_scores
from hmgr_jax.losses.triplet import triplet
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

TO_THE_END = 10**9
"""A warm-up of this many steps compiles the sum over all negatives alone."""


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
        is_negative: of the global batch, see ``losses.triplet.negatives``.
        axis: the model's ``Axis``.
        margin: required difference of a positive and a negative score.
        step: of the training.
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
