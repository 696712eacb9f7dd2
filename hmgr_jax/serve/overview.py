"""What an index holds: clusters with their most typical items, and a map in two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

from hmgr_jax.serve.snapshot import Snapshot

MOST = 4000
"""Items that are looked at; of more, a fixed random sample."""
CLUSTERS, TYPICAL = 16, 12
FEWEST = 6
"""Items of a cluster on average."""
ROUNDS = 30
OUTER = (0.02, 0.98)
"""Quantiles of the places that become -1 and 1."""


def overview(snapshot: Snapshot) -> dict[str, Any]:
    """Clusters, largest first, and the place of every item in a map.

    The map shows the two directions of the largest spread (a PCA) in -1..1.
    """
    index = snapshot.searcher.index
    numbers = index.numbers()
    rng = np.random.default_rng(0)
    if len(numbers) > MOST:
        numbers = np.sort(rng.permutation(numbers)[:MOST])
    vectors = index.engine.vectors(numbers).astype(np.float64)
    if snapshot.searcher.retriever.evaluator.calibration is not None:
        vectors = vectors[:, :-2]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count = max(1, min(CLUSTERS, len(vectors) // FEWEST))
    centres, own = kmeans2(vectors, _spread(vectors, count), minit="matrix", iter=ROUNDS)
    ids = [item.id for item in index.items(numbers)]
    order = sorted(range(count), key=lambda cluster: -int((own == cluster).sum()))
    clusters, rank = [], {}
    for place, cluster in enumerate(order):
        members = np.flatnonzero(own == cluster)
        rank[cluster] = place
        near = members[np.argsort(-(vectors[members] @ centres[cluster]), kind="stable")]
        if len(members):
            typical = [ids[n] for n in near[:TYPICAL].tolist()]
            clusters.append({"count": len(members), "items": typical})
    places = np.round(_map(vectors), 4).tolist()
    points = [
        {"id": id, "x": x, "y": y, "cluster": rank[int(cluster)]}
        for id, (x, y), cluster in zip(ids, places, own, strict=True)
    ]
    return {
        "count": len(index),
        "shown": len(points),
        "clusters": clusters,
        "points": points,
    }


def _spread(vectors: np.ndarray, count: int) -> np.ndarray:
    """First centres that lie far apart: each the farthest from those before."""
    chosen = [int(np.argmax(vectors @ vectors.mean(axis=0)))]
    near = vectors @ vectors[chosen[0]]
    while len(chosen) < count:
        chosen.append(int(np.argmin(near)))
        near = np.maximum(near, vectors @ vectors[chosen[-1]])
    return vectors[chosen]


def _map(vectors: np.ndarray) -> np.ndarray:
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    found = centred @ directions[:, :-3:-1]
    if found.shape[1] < 2:
        found = np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
    low, high = np.quantile(found, OUTER, axis=0)  # a few outliers must not squeeze the others
    return np.clip(2 * (found - low) / np.maximum(high - low, 1e-12) - 1, -1, 1)
