"""Triplet ranking of systems that score pairs: all negatives at first, then the hardest."""

from __future__ import annotations

from typing import Any

import jax

from hmgr_jax.losses.mined import Score, mined_triplet
from hmgr_jax.losses.triplet import triplet
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

TO_THE_END = 10**9
"""So many warm-up steps compile nothing but the sum over all negatives."""


def warmed_triplet(
    score: Score,
    score_pairs: Score,
    batch: tuple[Tree, Tree, Tree],
    is_negative: Bool[Array, "B B"],
    axis: Any,
    *,
    margin: float,
    step: Int[Array, ""],
    warmup: int,
) -> Float[Array, ""]:
    """The sum over all negatives until step ``warmup``, and the hardest ones from then on.

    Args:
        score: (params, codes [n], codes [m]) to the matrix [n, m].
        score_pairs: (params, codes [P], codes [P]) to the scores [P] of aligned pairs.
        batch: params, and this device's codes of both modalities.
        is_negative: of the global batch, see ``losses.triplet.negatives``.
        axis: the model's ``Axis``.
        margin: by how much a positive should exceed a negative.
        step: of the training.
        warmup: steps; 0 and ``TO_THE_END`` compile one of both losses only.
    """

    def hardest() -> Array:
        return mined_triplet(score, score_pairs, *batch, is_negative, axis, margin)

    def all_negatives() -> Array:
        params, images, texts = batch
        scores = axis.pair_rows(lambda a, b: score(params, a, b), images, texts)
        return triplet(scores, is_negative, margin=margin, hard=False)

    if 0 < warmup < TO_THE_END:
        return jax.lax.cond(step >= warmup, hardest, all_negatives)
    return all_negatives() if warmup else hardest()
