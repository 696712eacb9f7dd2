"""Triplet ranking on the hardest negatives where a pair's score is dear.

Only 3 B of a batch's B² pairs have a gradient then: the positives, and the hardest negative of
every row and column. All pairs are scored without one to find them, and these are scored again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.shapes import Array, Bool, Float, Tree

Score = Callable[[Tree, Tree, Tree], Array]


def mined_triplet(
    score: Score,
    score_pairs: Score,
    params: Tree,
    a: Tree,
    b: Tree,
    is_negative: Bool[Array, "B B"],
    axis: Any,
    margin: float,
) -> Float[Array, ""]:
    """``triplet(score(params, a, b), hard=True)``, its value and its gradient.

    Where several negatives of a row are equally hard, the first of them gets the whole gradient.

    Args:
        score: (params, codes [n], codes [m]) to the matrix [n, m].
        score_pairs: (params, codes [P], codes [P]) to the scores [P] of aligned pairs.
        params: what both have a gradient for, besides the codes.
        a: this device's codes of the first modality.
        b: this device's codes of the second modality.
        is_negative: of the global batch, see ``losses.triplet.negatives``.
        axis: the model's ``Axis``; each device scores the pairs of its own rows and columns again.
        margin: by how much a positive should exceed a negative.
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
    hinges = [
        jnp.where(jnp.any(is_negative, axis=1 - i), jnp.maximum(margin + n - positive, 0.0), 0.0)
        for i, n in enumerate(negative)
    ]
    return jnp.sum(hinges[0]) + jnp.sum(hinges[1])
