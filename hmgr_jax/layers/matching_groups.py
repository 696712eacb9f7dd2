"""Matching by the cosines of groups of features and a small network over them (GSMN; spec 4.6)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import Initializer, einsum, repeated
from hmgr_jax.layers.matching import Attention, Contexts, Queries
from hmgr_jax.shapes import Array, Float, Tree

HIDDEN = 32
"""Width of the network."""


def init_head(key: Array, groups: int) -> Tree:
    """Parameters of the network of one direction."""
    first, second = jax.random.split(key)
    draw: Initializer = jax.nn.initializers.xavier_uniform()
    return {
        "hidden": {"kernel": draw(first, (groups, HIDDEN)), "bias": jnp.zeros(HIDDEN)},
        "out": {"kernel": draw(second, (HIDDEN, 1)), "bias": jnp.zeros(1)},
    }


class GroupMatcher(NamedTuple):
    """A `Matching` of one step: what a query is worth is not one cosine.

    Query and attended context are cut into ``groups`` of features; the cosines x of the groups
    give tanh(x W_1 + b_1) W_2 + b_2.
    """

    attention: Attention
    params: Tree
    groups: int
    steps: int = 1

    def __call__(
        self, contexts: Contexts, queries: Queries
    ) -> tuple[Float[Array, "1 B Q"], Float[Array, "1 B Y Q"]]:
        """Worth of every query, and the weights of what it attends to."""
        dtype, x = self.attention.dtype, queries.nodes
        if x.ndim == 2:
            x = repeated(x, contexts.nodes.shape[0])
        raw = einsum("byd,bqd->byq", contexts.nodes, x, dtype=dtype)
        weight = self.attention.weights(raw, contexts, queries)
        attended = einsum("byq,byd->bqd", weight, contexts.nodes, dtype=dtype)
        cosines = self._cosines(x, attended)
        hidden, out = self.params["hidden"], self.params["out"]
        flat = einsum("nk,kh->nh", cosines.reshape(-1, self.groups), hidden["kernel"])
        flat = jnp.tanh(flat + hidden["bias"][None, :])
        worth = einsum("nh,ho->no", flat, out["kernel"])[:, 0] + out["bias"]
        return worth.reshape(1, *cosines.shape[:2]), weight[None]

    def _cosines(self, x: Array, y: Array) -> Float[Array, "B Q K"]:
        x, y = (one.reshape(*one.shape[:2], self.groups, -1) for one in (x, y))
        squares = (jnp.sum(one * one, axis=-1) + 1e-12 for one in (x, y))
        lengths = [jnp.sqrt(square) for square in squares]
        return jnp.sum(x * y, axis=-1) / (lengths[0] * lengths[1])
