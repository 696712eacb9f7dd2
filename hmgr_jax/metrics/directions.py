"""Recall of both directions of a score matrix.

A metric is named ``DIRECTION/MEASURE``: ``i2t/R@1``, ``t2v/medR``, ``image2point/meanR``.
"""

from __future__ import annotations

import numpy as np

from hmgr_jax.metrics.ranks import chance, ranks, recalls

KS = (1, 5, 10)
LETTERS = {"image": "i", "video": "v", "text": "t"}


def direction(query: str, gallery: str) -> str:
    """``i2t``, ``t2i``, ``v2t`` or ``t2v`` if one side is text, else such as ``image2point``."""
    if "text" in (query, gallery) and {query, gallery} <= LETTERS.keys():
        query, gallery = LETTERS[query], LETTERS[gallery]
    return f"{query}2{gallery}"


def both_directions(
    scores: np.ndarray,
    groups_a: np.ndarray,
    groups_b: np.ndarray,
    *,
    modalities: tuple[str, str] = ("image", "text"),
) -> dict[str, float]:
    """R@1, R@5, R@10, medR and meanR of both directions, and ``rsum``, the sum of the six R@K.

    ``scores`` are float [n_a, n_b], higher is better; pairs of equal group (int [n_a], [n_b]) are
    positives; ``modalities`` of rows and columns name the directions. Errors are those of `ranks`.
    """
    a, b = modalities
    metrics: dict[str, float] = {}
    for name, found in (
        (direction(a, b), ranks(scores, groups_a, groups_b)),
        (direction(b, a), ranks(scores.T, groups_b, groups_a)),
    ):
        metrics |= {f"{name}/{measure}": value for measure, value in recalls(found, KS).items()}
    return metrics | {"rsum": sum(v for name, v in metrics.items() if "/R@" in name)}


def chance_of_both(
    groups_a: np.ndarray, groups_b: np.ndarray, modalities: tuple[str, str]
) -> dict[str, float]:
    """R@1, R@5 and R@10 of random orders in both directions, named as by `both_directions`."""
    a, b = modalities
    ways = (
        (direction(a, b), chance(groups_a, groups_b, KS)),
        (direction(b, a), chance(groups_b, groups_a, KS)),
    )
    return {f"{way}/{measure}": value for way, found in ways for measure, value in found.items()}
