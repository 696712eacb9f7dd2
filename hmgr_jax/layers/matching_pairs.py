"""Given pairs of items, where `matching_blocks` takes all pictures with all captions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hmgr_jax.layers.matching import Matching, Queries
from hmgr_jax.layers.matching_blocks import contexts_of, cut
from hmgr_jax.shapes import Array, Float, Tree

AT_ONCE = 32
"""Pairs matched together; they are computed again for their gradient."""


def attend_in_pairs(
    matcher: Matching, queries: Tree, contexts: Tree
) -> tuple[Float[Array, "K P Q"], Float[Array, "K P Y Q"]]:
    """Cosines and weights of the fragments of P items, each attending to the item beside it.

    Codes are those of `matching_blocks`.
    """
    attending = Queries(
        queries["nodes"],
        queries["mask"],
        queries.get("query", ()),
        total=lambda x: jnp.broadcast_to(jnp.sum(x, axis=2, keepdims=True), x.shape),
        highest=lambda x: jnp.broadcast_to(jnp.max(x, axis=2, keepdims=True), x.shape),
    )
    return matcher(contexts_of(contexts), attending)


def score_in_pairs(matcher: Matching, queries: Tree, contexts: Tree) -> Float[Array, "K P"]:
    """Mean of those cosines over each item's fragments, a few pairs at a time."""

    @jax.checkpoint
    def of_some(pairs: Tree) -> Array:
        cosines, _ = attend_in_pairs(matcher, pairs["queries"], pairs["contexts"])
        mask = pairs["queries"]["mask"]
        total = jnp.sum(jnp.where(mask[None], cosines, 0.0), axis=2)
        return total / jnp.maximum(jnp.sum(mask, axis=1), 1).astype(jnp.float32)[None]

    scores = jax.lax.map(of_some, cut({"queries": queries, "contexts": contexts}, AT_ONCE))
    return jnp.moveaxis(scores, 1, 0).reshape(matcher.steps, -1)[:, : len(queries["mask"])]
