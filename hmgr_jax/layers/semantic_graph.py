"""Graph reasoning whose edges are features of their own (ReSG, spec 5.2 and 5.3)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import Linear, einsum, update_norm
from hmgr_jax.layers.masking import masked_softmax
from hmgr_jax.shapes import Array, Bool, Float, Int

KINDS = 64
"""Rows of the table of edge kinds."""


class SemanticGraph(nn.Module):
    """One layer: nodes gather what their neighbours and the relations to them say.

    e_ij = ReLU(x_i W_s + x_j W_t + g_ij + b), where g_ij is a linear map of numbers that describe
    the edge, or the row of a table; the weight of an edge is a softmax over j of e_ij·w plus a
    scaled product of queries and keys; x_i gains a layer norm, whose gain starts at ``gain``, of
    (Σ_j β_ij x_j W_m + Σ_j β_ij e_ij W_r) W_o. Relations are ``edge_features`` wide, never as wide
    as nodes. Without ``relation_edges`` it is a plain graph attention layer.
    """

    features: int
    edge_features: int
    relation_edges: bool = True
    neighbours: int = 0
    """Each node looks at its so many strongest neighbours; 0 is all."""
    gain: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        support: Bool[Array, "B N N"],
        numbers: Float[Array, "B N N G"] | None = None,
        kinds: Int[Array, "B N N"] | None = None,
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B N N"]]:
        """New nodes, and the weights of the edges; a node without any edge gains a constant.

        Args:
            x: nodes.
            support: edges (from j to i at [i, j]) that there are.
            numbers: what describes an edge; or
            kinds: which of `KINDS` an edge is.
        """

        def project(name: str, features: int, bias: bool = False) -> Array:
            return Linear(features, bias, self.dtype, name=name)(x)

        size = self.edge_features
        logits = einsum("bih,bjh->bij", project("query", size), project("key", size)) / size**0.5
        edges = None
        if self.relation_edges:
            edges = project("source", size)[:, :, None, :] + project("target", size)[:, None, :, :]
            edges = jax.nn.relu(edges + self._described(numbers, kinds))
            weight = self.param("weight", nn.initializers.xavier_uniform(), (size, 1), jnp.float32)
            logits = logits + einsum("bijh,ho->bijo", edges, weight)[..., 0]
        if 0 < self.neighbours < x.shape[1]:
            least = jax.lax.top_k(jnp.where(support, logits, -jnp.inf), self.neighbours)[0]
            support = support & (logits >= least[..., -1:])
        weights = masked_softmax(logits, support)
        message = einsum(
            "bij,bjd->bid", weights, project("message", self.features, True), dtype=self.dtype
        )
        if edges is not None:
            gathered = einsum("bij,bijh->bih", weights, edges)
            relation = Linear(self.features, False, self.dtype, name="relation")
            message = message + relation(gathered)
        update = Linear(self.features, dtype=self.dtype, name="out")(message)
        return x + update_norm(self.gain)(update), weights

    def _described(
        self, numbers: Float[Array, "B N N G"] | None, kinds: Int[Array, "B N N"] | None
    ) -> Float[Array, "B N N E"]:
        if numbers is not None:
            return Linear(self.edge_features, dtype=self.dtype, name="geometry")(numbers)
        if kinds is None:
            raise ValueError("SemanticGraph needs numbers or kinds of its edges")
        shape = (KINDS, self.edge_features)
        table = self.param("kinds", nn.initializers.normal(0.02), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape[1:], jnp.float32)
        # A product, not a look-up, whose gradient would be a sum row by row.
        rows = jax.nn.one_hot(kinds.reshape(-1), KINDS, dtype=jnp.float32)
        found = einsum("nk,kh->nh", rows, table + bias[None, :], dtype=self.dtype)
        return found.reshape(*kinds.shape, shape[1])
