"""Vectors and items for indices."""

import numpy as np

from hmgr_jax.search.index import Item

DIM = 16


def unit(count, dim=DIM, seed=0):
    """Random directions."""
    found = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def captions(count, first=0):
    """Captions of pictures that own five each."""
    return [
        Item(f"c{n}", caption=f"caption {n}", picture=f"p{n // 5}.jpg", owner=f"p{n // 5}")
        for n in range(first, first + count)
    ]


def best(queries, vectors, k):
    """Numbers by comparing all in float64, equal scores by number."""
    scores = (queries.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
