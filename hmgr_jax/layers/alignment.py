"""How well the nodes of one item are rebuilt from those of another (RACG spec 4.5, 4.6).

Codes are those of `cross_graph`, and ``lengths`` [n, N, K] of the groups of a node's features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from hmgr_jax.layers.cross_graph import Codes, CrossGraph
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import masked_softmax
from hmgr_jax.layers.reconstruction import (
    Concepts,
    Rebuilding,
    head_cosines,
    head_lengths,
    of_head,
)
from hmgr_jax.shapes import Array, Bool, Float, Tree

SOURCES = ("cross", "all")


class Alignment(NamedTuple):
    """How well the nodes of one modality are rebuilt from the other one's."""

    rebuilding: Rebuilding
    source: str
    """``cross``: from the other item's concepts; ``all`` (CGAM): from those of both."""
    cross: CrossGraph | None
    """None: from the other item's nodes themselves, by the attention of SCAN."""
    head: Tree | None

    def score(self, items: Codes, others: Codes) -> Float[Array, "A B"]:
        """Mean over the nodes of A ``items`` of their similarity, beside each of B ``others``."""
        _, rebuilt = self._rebuilt(items, others)
        cosines = head_cosines(items["nodes"], items["lengths"], rebuilt)
        return _mean_over_nodes(of_head(self.head, cosines), items["mask"])

    def distance(self, items: Codes, others: Codes) -> Float[Array, "A B"]:
        """Mean over nodes of 1 - cos(node, rebuilt node)."""
        _, rebuilt = self._rebuilt(items, others)
        return _mean_over_nodes(1.0 - _whole_cosines(items["nodes"], rebuilt), items["mask"])

    def correspondence(
        self, items: Codes, others: Codes
    ) -> tuple[Float[Array, "A B N M"], Float[Array, "A B N"]]:
        """What share of a node comes from which of the other item's; its cosine with the whole.

        With ``all`` the rest of the share comes from nodes of the same item.
        """
        weights, rebuilt = self._rebuilt(items, others)
        return weights[-1], _whole_cosines(items["nodes"], rebuilt)

    def _rebuilt(
        self, items: Codes, others: Codes
    ) -> tuple[tuple[Float[Array, "A B N _"], ...], Float[Array, "A B N D"]]:
        if self.cross is None:
            dtype = self.rebuilding.dtype
            attended = attention_of_scan(items, others, dtype)
            return (attended,), einsum("abnm,bmd->abnd", attended, others["nodes"], dtype=dtype)
        concepts = [self._concepts(self.cross.concepts(others, items), others["mask"][None])]
        if self.source == "all":
            own = jnp.swapaxes(self.cross.concepts(items, others), 0, 1)
            concepts.insert(0, self._concepts(own, items["mask"][:, None]))
        weights = self.rebuilding.weights(items["nodes"], tuple(concepts))
        return weights, self.rebuilding.rebuilt(weights, tuple(concepts))

    def _concepts(self, vectors: Float[Array, "A B M D"], mask: Array) -> Concepts:
        return Concepts(vectors, jnp.broadcast_to(mask, vectors.shape[:3]))


def attention_of_scan(
    items: Codes, others: Codes, dtype: Any, sharpness: float = 9.0, slope: float = 0.1
) -> Float[Array, "A B N M"]:
    """How much every node attends to those of another item (SCAN; spec 2.2 with its defaults)."""
    raw = einsum("and,bmd->abnm", items["nodes"], others["nodes"], dtype=dtype)
    raw = jnp.where(items["mask"][:, None, :, None], jnp.where(raw > 0, raw, slope * raw), 0.0)
    raw = raw / (jnp.sqrt(jnp.sum(raw * raw, axis=2, keepdims=True) + 1e-16) + 1e-8)
    mask = jnp.broadcast_to(others["mask"][None, :, None, :], raw.shape)
    return masked_softmax(sharpness * raw, mask)


def _mean_over_nodes(x: Float[Array, "A B N"], mask: Bool[Array, "A N"]) -> Float[Array, "A B"]:
    count = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(jnp.float32)
    return jnp.sum(jnp.where(mask[:, None, :], x, 0.0), axis=2) / count[:, None]


def _whole_cosines(
    nodes: Float[Array, "A N D"], rebuilt: Float[Array, "A B N D"]
) -> Float[Array, "A B N"]:
    return head_cosines(nodes, head_lengths(nodes, 1), rebuilt)[..., 0]
