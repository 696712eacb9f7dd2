"""VReG and TReG: from regions and words to the nodes and the vector of ReSG (spec 5.2 to 5.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.classes import ClassEmbedding
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.graph import box_geometry, full_support, window_support
from hmgr_jax.layers.pooling import GlobalPool
from hmgr_jax.layers.reading_order import in_order, reading_rank
from hmgr_jax.layers.regions import RegionEmbedding, read_regions
from hmgr_jax.layers.semantic_graph import SemanticGraph
from hmgr_jax.layers.word_edges import dependency_kinds, dependency_support, distance_kinds
from hmgr_jax.layers.words import WordEncoder
from hmgr_jax.models.base import Items
from hmgr_jax.shapes import Array, Bool, Float, Int

if TYPE_CHECKING:
    from hmgr_jax.models.resg import ReSG


class Encoded(NamedTuple):
    """What a tower makes of a batch of items."""

    x: Float[Array, "B N D"]
    mask: Bool[Array, "B N"]
    vector: Float[Array, "B D"] | None
    """Of unit length; None where there is no read-out."""
    weights: tuple[Float[Array, "B N N"], ...]
    """Of the edges, a graph layer each."""


class RegionTower(nn.Module):
    """VReG: edges know the looks of two regions and how their boxes lie to one another."""

    model: ReSG

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Encoded:
        """Embed, reason, read in order."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask = read_regions(items, m.region_scale, m.region_dropout, m.feature_dropout, keys)
        x = RegionEmbedding(
            m.dim, m.region_embedding, m.region_hidden, m.residual_gain, dtype, name="regions"
        )(x)
        classes = m.classes()
        if classes:
            embed = ClassEmbedding(classes, m.word_dim, m.dim, dtype, name="classes")
            x = x + embed(items)
        boxes, geometry = items.get("boxes"), None
        weights: list[Array] = []
        if m.visual_graph and m.relation_edges:
            geometry = jnp.zeros((*mask.shape, mask.shape[1], 6), jnp.float32)
            if m.boxes and boxes is not None:
                geometry = box_geometry(boxes)
        for layer in range(m.graph_layers if m.visual_graph else 0):
            graph = semantic_graph(m, layer, m.neighbours)
            x, weight = graph(x, full_support(mask), numbers=geometry)
            weights.append(weight)
        rank = None
        if m.region_order != "file" and m.readout == "gru":
            rank = reading_rank(items["boxes"], m.region_order)
        return Encoded(x, mask, read_out(m, x, mask, rank, keys), tuple(weights))


class WordTower(nn.Module):
    """TReG: edges know which relation two words stand in, or how far apart they are."""

    model: ReSG

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Encoded:
        """Encode, reason, read in order."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask = WordEncoder(
            m.vocabulary_size,
            m.word_dim,
            m.dim,
            m.word_dropout,
            m.vector_dropout,
            dtype,
            name="words",
        )(items["tokens"], items["lengths"], keys)
        weights: list[Array] = []
        if m.text_graph and m.graph_layers:
            support, kinds = word_graph(m, items, mask)
            for layer in range(m.graph_layers):
                x, weight = semantic_graph(m, layer)(x, support, kinds=kinds)
                weights.append(weight)
        return Encoded(x, mask, read_out(m, x, mask, None, keys), tuple(weights))


def word_graph(
    m: ReSG, items: Items, mask: Bool[Array, "B L"]
) -> tuple[Bool[Array, "B L L"], Int[Array, "B L L"] | None]:
    """Which words are neighbours, and of what kind."""
    if m.text_support == "dependency":
        support = dependency_support(items["heads"], mask)
    elif m.text_support == "window":
        support = window_support(mask, m.text_window)
    else:
        support = full_support(mask)
    if not m.relation_edges:
        return support, None
    if m.text_edges == "dependency":
        return support, dependency_kinds(items["heads"], items["relations"])
    return support, jnp.broadcast_to(distance_kinds(mask.shape[1])[None], support.shape)


def semantic_graph(m: ReSG, layer: int, neighbours: int = 0) -> SemanticGraph:
    """A graph layer of the model ``m``, to be called within a tower."""
    return SemanticGraph(
        m.dim,
        m.edge_dim or max(1, m.dim // 4),
        m.relation_edges,
        neighbours,
        m.residual_gain,
        jnp.dtype(m.dtype),
        name=f"graph{layer}",
    )


def read_out(
    m: ReSG, x: Array, mask: Array, rank: Array | None, keys: Keys | None
) -> Float[Array, "B D"] | None:
    """The vector of nodes in their contextual order."""
    if m.readout == "none":
        return None
    if m.readout == "gru":
        x, mask = in_order(x, mask, rank)
    pool = GlobalPool(m.readout, m.pool_dropout, jnp.dtype(m.dtype), name="readout")
    return pool(x, mask, keys)
