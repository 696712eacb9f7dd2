"""Matching by the cosines of groups of features and a small network over them (GSMN; spec 4.6)."""

from __future__ import annotations

from typing import NamedTuple

from hmgr_jax.layers.linear import einsum, repeated
from hmgr_jax.layers.matching import Attention, Contexts, Queries
from hmgr_jax.layers.reconstruction import head_cosines, head_lengths, of_head
from hmgr_jax.shapes import Float, Tree


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
        lengths = head_lengths(x, self.groups)
        cosines = head_cosines(x, lengths, attended[:, None])[:, 0]
        return of_head(self.params, cosines)[None], weight[None]
