"""Relations between the nodes of two items, and what nodes are rebuilt from (RACG spec 4.4, 4.9).

Of a pair with nodes Z = [regions; words], N of them, CGAM's encoder makes the concepts
C = (A Z W + Z) F + b with A = (Z W_q + b_q)(Z W_k + b_k)ᵀ / N. Everything in it that is linear in
one item is part of the item's code; a pair adds the two products that cross between its items.

Codes are dicts: ``nodes`` [n, N, D], ``mask`` [n, N], ``query`` and ``key`` (Z W_q + b_q,
Z W_k + b_k), ``update`` (Z W F), ``base`` (Z F + b) and ``own`` (Q Kᵀ Z W F within the item), each
[n, N, D] and 0 at padding. A block scores all of A items with all of B others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum, repeated
from hmgr_jax.shapes import Array, Bool, Float, Tree

Codes = Mapping[str, Any]


@dataclass(frozen=True)
class CrossGraph:
    """The encoder's settings; its parameters are plain dicts."""

    features: int
    inter: bool = True
    """Relations between the items."""
    intra: bool = True
    """Relations within each of them."""
    dtype: Any = jnp.float32

    def init(self, key: Array) -> Tree:
        """Xavier kernels and zero biases; ``concept`` (F) starts as the identity.

        Regions are rebuilt from mapped words and words from mapped regions, so one map has to suit
        both ways, which a random one does not.
        """
        size = self.features
        draw = jax.nn.initializers.xavier_uniform()
        keys = jax.random.split(key, 3)

        def bias() -> Array:
            return jnp.zeros(size, jnp.float32)

        return {
            "query": {"kernel": draw(keys[0], (size, size), jnp.float32), "bias": bias()},
            "key": {"kernel": draw(keys[1], (size, size), jnp.float32), "bias": bias()},
            "value": {"kernel": draw(keys[2], (size, size), jnp.float32)},
            "concept": {"kernel": jnp.eye(size, dtype=jnp.float32), "bias": bias()},
        }

    def of_item(self, params: Tree, nodes: Float[Array, "n N D"], mask: Bool[Array, "n N"]) -> Tree:
        """What a pair needs of one of its items, besides its nodes."""
        keep = mask[:, :, None]

        def apply(own: Tree, x: Array) -> Array:
            flat = x.reshape(-1, self.features)
            y = einsum("nd,de->ne", flat, own["kernel"], dtype=self.dtype)
            if "bias" in own:
                y = y + repeated(own["bias"], y.shape[0])
            return jnp.where(keep, y.reshape(x.shape), 0.0)

        base = apply(params["concept"], nodes)
        found = {"base": base}
        if not (self.inter or self.intra):
            return found
        without_bias = {"kernel": params["concept"]["kernel"]}
        update = apply(without_bias, apply(params["value"], nodes))
        query, key = apply(params["query"], nodes), apply(params["key"], nodes)
        if self.intra:
            relations = einsum("nid,njd->nij", query, key, dtype=self.dtype)
            found["own"] = einsum("nij,njd->nid", relations, update, dtype=self.dtype)
        return found | ({"query": query, "key": key, "update": update} if self.inter else {})

    def concepts(self, others: Codes, items: Codes) -> Float[Array, "A B M D"]:
        """The concepts of B ``others``, each beside every one of A ``items``; any at padding."""
        counts = jnp.sum(items["mask"], axis=1)[:, None] + jnp.sum(others["mask"], axis=1)[None, :]
        share = 1.0 / jnp.maximum(counts, 1).astype(jnp.float32)[:, :, None, None]
        found = others["base"][None]
        if self.intra:
            found = found + others["own"][None] * share
        if self.inter:
            relations = einsum("bmd,and->abmn", others["query"], items["key"], dtype=self.dtype)
            relations = relations * share
            found = found + einsum("abmn,and->abmd", relations, items["update"], dtype=self.dtype)
        size = len(items["mask"]), *others["base"].shape
        return jnp.broadcast_to(found, size)
