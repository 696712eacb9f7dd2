"""How much of the true nearest an engine finds, and how hard it must look for that."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmgr_jax.search.index_engine import Engine
from hmgr_jax.search.index_faiss import FaissEngine
from hmgr_jax.shapes import Float, Int

SAMPLE = 100
"""Vectors that ask, each for the ten others nearest to it."""
WANTED = 0.95
BLOCK = 1 << 16


def measured(
    engine: Engine,
    queries: Float[np.ndarray, "q E"],
    numbers: Int[np.ndarray, " n"],
    vectors: Float[np.ndarray, "n E"],
    k: int = 10,
) -> float:
    """Share of the true best ``k`` of every query that ``engine`` finds, 0 to 1.

    Args:
        engine: with ``vectors`` in it.
        queries: [q, E].
        numbers: of ``vectors``.
        vectors: all that can be found.
        k: how many, at most n.
    """
    k = min(k, len(numbers))
    return _share(engine, queries, numbers[nearest(queries, vectors, k)])


def nearest(
    queries: Float[np.ndarray, "q E"], vectors: Float[np.ndarray, "n E"], k: int
) -> Int[np.ndarray, "q k"]:
    """Rows of the best ``k`` vectors of every query, by comparing all."""
    rows: np.ndarray = np.zeros((len(queries), 0), np.int64)
    scores: np.ndarray = np.zeros((len(queries), 0), np.float32)
    for first in range(0, len(vectors), BLOCK):
        found = queries @ vectors[first : first + BLOCK].T
        here = np.broadcast_to(np.arange(first, first + found.shape[1]), found.shape)
        rows, scores = np.hstack([rows, here]), np.hstack([scores, found])
        if rows.shape[1] > k:
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            rows, scores = (np.take_along_axis(x, best, axis=1) for x in (rows, scores))
    return rows


def tuned(engine: FaissEngine, vectors: Float[np.ndarray, "n E"]) -> dict[str, Any]:
    """Double the engine's effort until it finds `WANTED` of the true ten nearest.

    Asked are `SAMPLE` of ``vectors``, numbered from 0; that each finds itself does not count.
    """
    chosen = np.random.default_rng(0).permutation(len(vectors))[:SAMPLE]
    k = min(11, len(vectors))
    truth = nearest(vectors[chosen], vectors, k)
    while True:
        recall = _share(engine, vectors[chosen], truth, itself=chosen)
        if recall >= WANTED or engine.effort >= engine.most_effort():
            return {"effort": engine.effort, "recall@10": round(recall, 4)}
        engine.effort = min(2 * engine.effort, engine.most_effort())


def _share(
    engine: Engine,
    queries: np.ndarray,
    truth: np.ndarray,
    itself: np.ndarray | None = None,
) -> float:
    found, _ = engine.search(queries, truth.shape[1])
    kept = wanted = 0
    for row, true in enumerate(truth):
        others = set(true.tolist()) - (set() if itself is None else {int(itself[row])})
        wanted += len(others)
        kept += len(others & set(found[row].tolist()))
    return kept / max(1, wanted)
