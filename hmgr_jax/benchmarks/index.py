"""Time, memory and recall of an index of random vectors."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hmgr_jax.benchmarks.memory import forget_peak, peak_memory_bytes
from hmgr_jax.errors import UserError
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.index_faiss import nearest

BLOCK = 1 << 16


def run(
    vectors: int = 100_000,
    dim: int = 512,
    engine: str = "flat",
    queries: int = 200,
    k: int = 10,
    clusters: int = 0,
    uri: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Build an index of random directions and query it with other random directions.

    Random directions are the worst case of HNSW and IVF, because they have no clusters.
    ``--clusters N`` puts vectors and queries around N centres (cosine about 0.7), as a trained
    model does. Approximate engines are tuned while they are built, as for search. ``uri`` is the
    address of Milvus.

    Returns:
        a row for JSON: seconds to build (with tuning), queries per second in one batch and one by
        one, recall@k against an exact search (0 to 1), and the peak memory of this process in
        bytes above its start, of which ``vectors_bytes`` are the given vectors.

    Raises:
        UserError: an invalid size or engine, or the package of the engine is missing.
    """
    if min(vectors, dim, queries, k) < 1 or clusters < 0 or k > vectors:
        raise UserError("Every size must be at least 1, and --k at most --vectors.")
    forget_peak()
    before = peak_memory_bytes()
    rng = np.random.default_rng(seed)
    centres = _directions(rng, clusters, dim) if clusters else None
    base, asked = (_directions(rng, count, dim, centres) for count in (vectors, queries))
    items = [Item(str(number)) for number in range(vectors)]
    begin = time.perf_counter()
    index = Index.build(base, items, model="random", engine=engine, uri=uri or None)
    build_seconds = time.perf_counter() - begin
    try:
        index.search(asked[:1], k)
        begin = time.perf_counter()
        found, _ = index.search(asked, k)
        together = time.perf_counter() - begin
        begin = time.perf_counter()
        singles = asked[: min(queries, 50)]
        for query in singles:
            index.search(query[None], k)
        one_by_one = time.perf_counter() - begin
        peak = peak_memory_bytes() - before
    finally:
        index.close()
    truth = nearest(asked, base, k)
    kept = [len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
    return {
        "benchmark": "index",
        "engine": engine,
        "vectors": vectors,
        "dim": dim,
        "clusters": clusters,
        "queries": queries,
        "k": k,
        "build_seconds": round(build_seconds, 3),
        "queries_per_second": round(queries / together, 2),
        "single_queries_per_second": round(len(singles) / one_by_one, 2),
        f"recall@{k}": sum(kept) / (queries * k),
        "effort": index.about.get("effort"),
        "peak_memory_bytes": peak,
        "vectors_bytes": base.nbytes,
    }


def _directions(
    rng: np.random.Generator, count: int, dim: int, centres: np.ndarray | None = None
) -> np.ndarray:
    """Unit vectors float32 [count, dim], around ``centres`` if given."""
    found = np.empty((count, dim), np.float32)
    for first in range(0, count, BLOCK):
        block = found[first : first + BLOCK]
        block[:] = rng.standard_normal(block.shape, np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        if centres is not None:
            block += centres[rng.integers(len(centres), size=len(block))]
            block /= np.linalg.norm(block, axis=1, keepdims=True)
    return found
