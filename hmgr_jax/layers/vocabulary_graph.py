"""The graph of a vocabulary and Chebyshev convolution over it (Defferrard et al., NIPS 2016).

All texts share one graph of the words of a vocabulary; texts differ in the features of the nodes
(GIN, PCM 2018; SCKR, KSEM 2019). As in both papers the largest eigenvalue of the Laplacian
L = I - D^-1/2 A D^-1/2 is set to 2, so the polynomials are of L - I = -D^-1/2 A D^-1/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import l2n
from hmgr_jax.shapes import Array, Bool, Float, Int

Graph = Mapping[str, Any]
"""``{"dense": [V, V]}``, or ``{"senders", "receivers", "weight"}`` [E] in order of receivers."""
ROWS_AT_ONCE = 1024
DENSE_BELOW = 4000
"""Number of nodes up to which ``graph`` auto is dense."""


@partial(jax.jit, static_argnums=(2, 3))
def nearest(
    vectors: Float[Array, "V D"], usable: Bool[Array, " V"], k: int, rows: int = ROWS_AT_ONCE
) -> Int[Array, "V k"]:
    """The ``k`` nearest other vectors by cosine, padded with -1.

    ``rows`` vectors at a time are compared with all others, so memory does not grow with V².
    Vectors that are zero or not ``usable`` have no neighbours and are nobody's neighbour.
    """
    usable = usable & jnp.any(vectors != 0, axis=1)
    unit, count = l2n(vectors), len(vectors)
    blocks = -(-count // rows)
    padded = jnp.pad(jnp.arange(count), (0, blocks * rows - count)).reshape(blocks, rows)

    def of_block(numbers: Array) -> Array:
        cosine = einsum("id,jd->ij", unit[numbers], unit)
        fits = usable[None, :] & usable[numbers][:, None]
        fits &= numbers[:, None] != jnp.arange(count)[None, :]
        best, which = jax.lax.top_k(jnp.where(fits, cosine, -jnp.inf), k)
        return jnp.where(jnp.isfinite(best), which, -1)

    return jax.lax.map(of_block, padded).reshape(-1, k)[:count]


def make_graph(edges: np.ndarray, count: int, dense: bool) -> dict[str, np.ndarray]:
    """The matrix -D^-1/2 A D^-1/2 of undirected ``edges`` [E, 2] between ``count`` nodes.

    Repeated and reversed edges count once, loops are dropped, and the row of a node without edges
    is 0.
    """
    edges = np.asarray(edges, np.int64).reshape(-1, 2)
    edges = edges[edges[:, 0] != edges[:, 1]]
    both = np.concatenate([edges, edges[:, ::-1]])
    receivers, senders = np.divmod(np.unique(both[:, 0] * count + both[:, 1]), max(count, 1))
    degree = np.bincount(receivers, minlength=count).astype(np.float64)
    root = 1.0 / np.sqrt(np.maximum(degree, 1.0))
    weight = (-root[receivers] * root[senders]).astype(np.float32)
    if dense:
        matrix = np.zeros((count, count), np.float32)
        matrix[receivers, senders] = weight
        return {"dense": matrix}
    found = {"senders": senders.astype(np.int32), "receivers": receivers.astype(np.int32)}
    return {**found, "weight": weight}


def propagate(graph: Graph, x: Float[Array, "V M"], dtype: Any = jnp.float32) -> Array:
    """The graph's matrix times ``x``; a dense product is computed in ``dtype``."""
    if "dense" in graph:
        return einsum("vw,wm->vm", jnp.asarray(graph["dense"]), x, dtype=dtype)
    sent = x[jnp.asarray(graph["senders"])] * graph["weight"][:, None]
    return jax.ops.segment_sum(
        sent, graph["receivers"], num_segments=len(x), indices_are_sorted=True
    )


def chebyshev(graph: Graph, x: Float[Array, "V M"], terms: int, dtype: Any = jnp.float32) -> Array:
    """T_0 x to T_{terms-1} x of the graph's matrix, [terms, V, M].

    T_k = 2 L T_{k-1} - T_{k-2}. (SCKR's code does not update T_{k-2}, so its results differ from
    the fourth term on.)
    """
    found = [x]
    for k in range(1, terms):
        next_ = propagate(graph, found[-1], dtype)
        found.append(next_ if k == 1 else 2.0 * next_ - found[-2])
    return jnp.stack(found)


class ChebyshevLayer(nn.Module):
    """relu([T_0 x, .., T_{K-1} x] W + b), with a bias for every node and filter."""

    features: int
    terms: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, graph: Graph, x: Float[Array, "V B F"]) -> Float[Array, "V B G"]:
        """Convolve the features of all nodes of every text; nodes come first."""
        nodes, batch, inputs = x.shape
        shape = (self.terms, inputs, self.features)
        init = nn.initializers.glorot_uniform(in_axis=(0, 1))
        kernel: Array = self.param("kernel", init, shape, jnp.float32)
        zeros = nn.initializers.zeros_init()
        bias: Array = self.param("bias", zeros, (nodes, self.features), jnp.float32)
        found = chebyshev(graph, x.reshape(nodes, -1), self.terms, self.dtype)
        found = found.reshape(self.terms, nodes, batch, inputs)
        y = jnp.zeros((nodes, batch, self.features), jnp.float32)
        for term, mix in zip(found, kernel, strict=True):
            # With one input feature the product is elementwise.
            y += term * mix[None] if inputs == 1 else einsum("vbf,fg->vbg", term, mix)
        return jax.nn.relu(y + bias[:, None, :])
