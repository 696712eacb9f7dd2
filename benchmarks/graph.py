"""Time and memory of a vocabulary's graph: nearest neighbours and graph convolutions."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax import bench
from hmgr_jax.benchmarks.program import median_time, platform, program_bytes
from hmgr_jax.errors import UserError
from hmgr_jax.layers.vocabulary_graph import ChebyshevLayer, Graph, make_graph, nearest
from hmgr_jax.shapes import Array, Float, Tree


def run(
    words: int = 10000,
    vector_dim: int = 300,
    neighbours: int = 8,
    batch: int = 128,
    features: int = 1,
    terms: int = 3,
    layers: int = 2,
    repeats: int = 3,
) -> dict[str, Any]:
    """Time nearest neighbours of random word vectors, and Chebyshev layers of a batch of texts.

    Each of ``layers`` layers has ``features`` filters of ``terms`` terms. Time and memory are those
    of a loss and its gradient, with the same graph as a dense matrix and as a list of edges.

    Returns:
        a row for JSON: ``nearest_seconds`` (median of warm calls), the number of directed edges,
        and for ``dense`` and ``sparse`` seconds (median of warm calls), ``memory_bytes`` of the
        compiled program, ``graph_bytes`` of them, and ``graph_seconds`` to build the graph on the
        host; ``apart``, the relative difference of the two losses.

    Raises:
        UserError: a size is too small.
    """
    sizes = (vector_dim, neighbours, batch, features, terms, layers, repeats)
    if min(sizes) < 1 or words <= neighbours:
        raise UserError(
            "Every size must be at least 1, and --words above --neighbours: raise the one that "
            "is not."
        )
    rng = np.random.default_rng(0)
    vectors = jnp.asarray(rng.standard_normal((words, vector_dim), np.float32))
    usable = jnp.ones(words, bool)
    found, near = median_time(lambda: nearest(vectors, usable, neighbours), repeats)
    edges = np.stack([np.repeat(np.arange(words), neighbours), np.asarray(near).ravel()], axis=1)
    bags = _bags(rng, words, batch)
    kinds: dict[str, Any] = {}
    losses = []
    for kind in ("dense", "sparse"):
        begin = time.perf_counter()
        graph = make_graph(edges, words, dense=kind == "dense")
        made = time.perf_counter() - begin
        row, loss = _convolutions(graph, bags, features, terms, layers, repeats)
        kinds[kind] = {**row, "graph_seconds": made}
        losses.append(loss)
    return {
        "benchmark": "graph",
        "words": words,
        "vector_dim": vector_dim,
        "neighbours": neighbours,
        "batch": batch,
        "features": features,
        "terms": terms,
        "layers": layers,
        "platform": platform(),
        "nearest_seconds": found,
        "edges": len(graph["weight"]),
        **kinds,
        "apart": abs(losses[0] - losses[1]) / abs(losses[0]),
        "load": os.getloadavg()[0],
    }


def _bags(rng: np.random.Generator, words: int, batch: int) -> Float[Array, "V B 1"]:
    """Unit bags of a dozen words each."""
    bags = np.zeros((words, batch, 1), np.float32)
    bags[rng.integers(0, words, (12, batch)), np.arange(batch)] = 12**-0.5
    return jnp.asarray(bags)


def _convolutions(
    graph: Graph, bags: Array, features: int, terms: int, layers: int, repeats: int
) -> tuple[dict[str, Any], float]:
    """Seconds and bytes of the layers with their gradient, and the loss."""
    own = [ChebyshevLayer(features, terms) for _ in range(layers)]
    keys = jax.random.split(jax.random.key(0), layers)
    graph = jax.tree.map(jnp.asarray, dict(graph))
    params: list[Tree] = []
    for number, (layer, key) in enumerate(zip(own, keys, strict=True)):
        inputs = 1 if not number else features
        shape = (terms, inputs, features)
        kernel = jnp.abs(jax.random.normal(key, shape)) * jnp.asarray([1.0, -1.0])[
            jnp.arange(terms) % 2
        ].reshape(-1, 1, 1)
        params.append({"kernel": kernel, "bias": jnp.zeros((len(bags), layer.features))})

    def loss(params: list[Tree], graph: Graph, x: Array) -> Array:
        for layer, of_layer in zip(own, params, strict=True):
            x = layer.apply({"params": of_layer}, graph, x)  # type: ignore[assignment]
        return jnp.sum(x**2)

    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, graph, bags).compile()
    seconds, (value, _) = median_time(lambda: compiled(params, graph, bags), repeats)
    row = {
        "seconds": seconds,
        "memory_bytes": program_bytes(compiled),
        "graph_bytes": sum(x.nbytes for x in jax.tree.leaves(graph)),
    }
    return row, float(value)


if __name__ == "__main__":
    sys.exit(bench.main_of(run))
