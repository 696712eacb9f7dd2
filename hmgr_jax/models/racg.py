"""RACG: relation-aggregated cross-graph (IEEE TNNLS 35(2), 2024), on the equations of CGAM.

Only RACG's abstract was available. The graph of a pair, the reconstruction and the grouped cosines
follow its short-paper precursor CGAM (He et al., SIGIR 2021); the graph within an item is ours. An
image has regions h_r = l2n(f_r W + b + s_r), where s_r embeds the detected classes of the region; a
caption has words h_w, the states of a GRU.

    within an item:  A = softmax_j((h_i W_q)(h_j W_k)ᵀ / √D + β_ij),  h ← l2n(h + LN(A h W_u W_o))
    of a pair:       A = (Z W_q + b_q)(Z W_k + b_k)ᵀ / N,  Z = [regions; words], N nodes
    concepts:        C = (A Z W + Z) F + b
    rebuilt node:    r = Σ_n softmax_n(ρ cos(h, C_n)) C_n,  over the concepts of the other item
    score:           S = mean_r φ_I(x_r) + mean_w φ_T(x_w),  x the cosines of K groups of h and r

``racg_strict`` is CGAM: a node is rebuilt from the concepts of both items, by plain products.
Everything in C that is linear in one item is part of the item's codes (U = Z W F, Z F + b, the
queries, the keys and the products within the item), so a pair adds only the two products between
its items. docs/models/racg.md has deviations, options and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers.cross_attention import scan_attention
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.graph import GraphReasoning, full_support
from hmgr_jax.layers.grouped_cosines import apply_head, group_cosines, group_lengths, init_head
from hmgr_jax.layers.linear import einsum, repeated
from hmgr_jax.layers.masking import l2n, masked_softmax
from hmgr_jax.layers.pair_blocks import score_given_pairs
from hmgr_jax.models.base import (
    Attended,
    Axis,
    Codes,
    Explanation,
    Feature,
    Items,
    Parts,
    Plan,
    Terms,
    Variables,
)
from hmgr_jax.models.options import option
from hmgr_jax.models.pair_scored import ReadsDetections, embed_regions, encode_words
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

SOURCES = ("cross", "all")
LOGITS = ("cos", "dot")


class RegionTower(nn.Module):
    """Regions to unit nodes."""

    model: RACG

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None
    ) -> tuple[Float[Array, "B R D"], Bool[Array, "B R"]]:
        """Embed every region with its classes, and reason over the regions of an image."""
        m = self.model
        x, mask = embed_regions(m, items, keys)
        x = l2n(x)
        if m.intra_graph:
            boxes = items.get("boxes") if m.boxes else None
            x = l2n(_graph(m, boxes=boxes is not None)(x, full_support(mask), boxes))
        return x, mask


class WordTower(nn.Module):
    """Words to unit nodes."""

    model: RACG

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """Encode every word in its caption, and reason over the words of a caption."""
        m = self.model
        x, mask = encode_words(m, items, keys)
        x = l2n(x)
        if m.intra_graph:
            x = l2n(_graph(m, furthest=m.text_distance)(x, full_support(mask)))
        return x, mask


def _graph(m: RACG, boxes: bool = False, furthest: int = 0) -> GraphReasoning:
    dtype = jnp.dtype(m.dtype)
    return GraphReasoning(m.dim, boxes, dtype=dtype, furthest=furthest, name="graph")


@dataclass(frozen=True)
class CrossGraph:
    """The concepts C of a pair, from codes of its items.

    Codes are ``base`` (Z F + b), ``own`` (Q Kᵀ Z W F within the item) and, with relations between
    the items, ``query``, ``key`` and ``update`` (Z W F), each [n, N, D] and 0 at padding.
    """

    features: int
    inter: bool = True
    """Relations between the items."""
    dtype: Any = jnp.float32

    def init(self, key: Array) -> Tree:
        """Xavier kernels and zero biases; ``concept`` (F) starts as the identity.

        Regions are rebuilt from mapped words and words from mapped regions. A random map
        does not suit both.
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

    def item_codes(
        self, params: Tree, nodes: Float[Array, "n N D"], mask: Bool[Array, "n N"]
    ) -> dict[str, Array]:
        """The codes of items, besides their nodes."""
        keep = mask[:, :, None]

        def apply(layer: Tree, x: Array) -> Array:
            flat = x.reshape(-1, self.features)
            y = einsum("nd,de->ne", flat, layer["kernel"], dtype=self.dtype)
            if "bias" in layer:
                y = y + repeated(layer["bias"], y.shape[0])
            return jnp.where(keep, y.reshape(x.shape), 0.0)

        base = apply(params["concept"], nodes)
        without_bias = {"kernel": params["concept"]["kernel"]}
        update = apply(without_bias, apply(params["value"], nodes))
        query, key = apply(params["query"], nodes), apply(params["key"], nodes)
        relations = einsum("nid,njd->nij", query, key, dtype=self.dtype)
        own = einsum("nij,njd->nid", relations, update, dtype=self.dtype)
        codes = {"base": base, "own": own}
        return codes | ({"query": query, "key": key, "update": update} if self.inter else {})

    def concepts(self, others: Codes, items: Codes) -> Float[Array, "A B M D"]:
        """Concepts of B ``others`` in the pair with each of A ``items``; undefined at padding."""
        counts = jnp.sum(items["mask"], axis=1)[:, None] + jnp.sum(others["mask"], axis=1)[None, :]
        share = 1.0 / jnp.maximum(counts, 1).astype(jnp.float32)[:, :, None, None]
        concepts = others["base"][None] + others["own"][None] * share
        if self.inter:
            relations = einsum("bmd,and->abmn", others["query"], items["key"], dtype=self.dtype)
            relations = relations * share
            crossing = einsum("abmn,and->abmd", relations, items["update"], dtype=self.dtype)
            concepts = concepts + crossing
        return jnp.broadcast_to(concepts, (len(items["mask"]), *others["base"].shape))


class Concepts(NamedTuple):
    """The concepts of one side of each of A x B pairs."""

    vectors: Float[Array, "A B M D"]
    mask: Bool[Array, "A B M"]


class Alignment(NamedTuple):
    """Rebuilds the nodes of one modality from pairs, and compares them with the nodes.

    Codes are those of `CrossGraph`, and ``lengths`` [n, N, K] of the groups of a node's features.
    """

    sharpness: float
    """ρ of the softmax over concepts."""
    logit: str
    """``cos``, or the plain product ``dot`` (CGAM); nodes are unit vectors."""
    source: str
    """``cross``: concepts of the other item; ``all`` (CGAM): concepts of both items."""
    cross: CrossGraph | None
    """None: nodes are rebuilt from the other item's nodes by the attention of SCAN."""
    head: Tree
    dtype: Any = jnp.float32

    def score(self, items: Codes, others: Codes) -> Float[Array, "A B"]:
        """Mean similarity of the nodes of A ``items`` in the pair with each of B ``others``."""
        _, rebuilt = self._rebuild(items, others)
        cosines = group_cosines(items["nodes"], items["lengths"], rebuilt)
        return _mean_over_nodes(apply_head(self.head, cosines), items["mask"])

    def distance(self, items: Codes, others: Codes) -> Float[Array, "A B"]:
        """Mean over nodes of 1 - cos(node, rebuilt node)."""
        _, rebuilt = self._rebuild(items, others)
        return _mean_over_nodes(1.0 - _node_cosines(items["nodes"], rebuilt), items["mask"])

    def correspondence(
        self, items: Codes, others: Codes
    ) -> tuple[Float[Array, "A B N M"], Float[Array, "A B N"]]:
        """Share of each node of the other item in each rebuilt node, and cos(node, rebuilt node).

        With the source ``all`` the remaining share comes from nodes of the same item.
        """
        weights, rebuilt = self._rebuild(items, others)
        return weights[-1], _node_cosines(items["nodes"], rebuilt)

    def _rebuild(
        self, items: Codes, others: Codes
    ) -> tuple[list[Float[Array, "A B N _"]], Float[Array, "A B N D"]]:
        """Weights of the concepts of each side (the other item's last), and the rebuilt nodes."""
        if self.cross is None:
            attended = scan_attention(items, others, self.dtype)
            rebuilt = einsum("abnm,bmd->abnd", attended, others["nodes"], dtype=self.dtype)
            return [attended], rebuilt
        sides = [_concepts(self.cross.concepts(others, items), others["mask"][None])]
        if self.source == "all":
            own = jnp.swapaxes(self.cross.concepts(items, others), 0, 1)
            sides.insert(0, _concepts(own, items["mask"][:, None]))
        weights = self._weights(items["nodes"], sides)
        parts = [
            einsum("abnm,abmd->abnd", weight, side.vectors, dtype=self.dtype)
            for weight, side in zip(weights, sides, strict=True)
        ]
        return weights, sum(parts[1:], start=parts[0])

    def _weights(
        self, nodes: Float[Array, "A N D"], sides: list[Concepts]
    ) -> list[Float[Array, "A B N _"]]:
        """A softmax over the concepts of all sides together; 0 at padding."""
        logits = jnp.concatenate([self._logits(nodes, side) for side in sides], axis=3)
        mask = jnp.concatenate([side.mask for side in sides], axis=2)[:, :, None, :]
        weights = masked_softmax(logits, jnp.broadcast_to(mask, logits.shape))
        return jnp.split(weights, [side.mask.shape[2] for side in sides[:-1]], axis=3)

    def _logits(self, nodes: Array, concepts: Concepts) -> Float[Array, "A B N M"]:
        logits = einsum("and,abmd->abnm", nodes, concepts.vectors, dtype=self.dtype)
        if self.logit == "cos":
            # The addend keeps the gradient of a zero concept finite.
            length = jnp.sqrt(jnp.sum(concepts.vectors**2, axis=3) + 1e-12) + 1e-8
            logits = logits / length[:, :, None, :]
        return self.sharpness * logits


def _concepts(vectors: Float[Array, "A B M D"], mask: Array) -> Concepts:
    return Concepts(vectors, jnp.broadcast_to(mask, vectors.shape[:3]))


def _mean_over_nodes(x: Float[Array, "A B N"], mask: Bool[Array, "A N"]) -> Float[Array, "A B"]:
    count = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(jnp.float32)
    return jnp.sum(jnp.where(mask[:, None, :], x, 0.0), axis=2) / count[:, None]


def _node_cosines(
    nodes: Float[Array, "A N D"], rebuilt: Float[Array, "A B N D"]
) -> Float[Array, "A B N"]:
    return group_cosines(nodes, group_lengths(nodes, 1), rebuilt)[..., 0]


@dataclass(frozen=True)
class RACG(ReadsDetections):
    """RACG with its hyper-parameters; sizes of 0 come from the data."""

    node_codes: ClassVar[tuple[str, ...]] = (
        *("nodes", "mask", "lengths"),
        *("base", "own", "query", "key", "update"),
    )
    pair_keys: ClassVar[int] = 3

    intra_graph: bool = True
    """Graph reasoning within each item."""
    text_distance: int = option(0, at_least=0)
    """Largest signed distance of words with its own affinity in the text graph; 0: none."""
    inter_blocks: bool = True
    """Relations between the two items of a pair."""
    reconstruction: bool = True
    """Off: nodes are compared with the nodes that they attend to, as in SCAN."""
    recon_source: str = option("cross", choices=SOURCES)
    recon_logit: str = option("cos", choices=LOGITS)
    sharpness: float = option(10.0, at_least=0.0)
    heads: int = option(16, at_least=1)
    """Groups of features whose cosines are compared."""
    recon_weight: float = option(0.0, at_least=0.0)
    """Weight of the mean of 1 - cos(node, rebuilt node) over the nodes of the true pairs."""

    # --- encode -------------------------------------------------------------------------------

    def tower(self, modality: str) -> nn.Module:
        """The encoder of a modality."""
        return RegionTower(self) if modality == "image" else WordTower(self)

    def to_codes(self, variables: Variables, modality: str, encoded: Any) -> Codes:
        """``nodes`` [B, N, D] of unit length, ``mask`` [B, N], ``lengths`` [B, N, K] of groups.

        With reconstruction also the codes of `CrossGraph`.
        """
        x, mask = encoded
        nodes = jnp.where(mask[:, :, None], x, 0.0)
        codes = {"nodes": nodes, "mask": mask, "lengths": group_lengths(nodes, self.heads)}
        if self.reconstruction:
            codes |= self._cross().item_codes(variables.params["cross"], nodes, mask)
        return codes

    # --- score --------------------------------------------------------------------------------

    def score_block(self, variables: Variables, images: Codes, texts: Codes) -> Float[Array, "I C"]:
        """S of a few images with a few captions, in one block."""
        image_scores = self._alignment(variables, "image").score(images, texts)
        return image_scores + self._alignment(variables, "text").score(texts, images).T

    def _alignment(self, variables: Variables, modality: str) -> Alignment:
        cross = self._cross() if self.reconstruction else None
        head = variables.params["heads"][modality]
        return Alignment(
            self.sharpness, self.recon_logit, self.recon_source, cross, head, jnp.dtype(self.dtype)
        )

    def _cross(self) -> CrossGraph:
        return CrossGraph(self.dim, self.inter_blocks, jnp.dtype(self.dtype))

    def explain(self, variables: Variables, image: Codes, text: Codes) -> Explanation:
        """Shares of the other item's nodes in every rebuilt node, and its cosine with the node."""
        sides = {"t2i": ("text", text, image), "i2t": ("image", image, text)}
        attention = {}
        for direction, (modality, items, others) in sides.items():
            weights, cosines = self._alignment(variables, modality).correspondence(items, others)
            attention[direction] = Attended(weights[0], cosines[0])
        return Explanation(self.score_block(variables, image, text)[0], attention)

    def relations(
        self, variables: Variables, modality: str, items: Items
    ) -> Float[Array, "B 1 N N"] | None:
        """Weights of the graph within each item."""
        if not self.intra_graph:
            return None
        _, kept = self.apply_tower(variables, modality, items, None, mutable="intermediates")
        weights: Array = kept["intermediates"]["graph"]["weights"][0]
        return weights[:, None]

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self,
        variables: Variables,
        codes: Mapping[str, Codes],
        row: Items,
        *,
        step: Int[Array, ""],
        keys: Keys,
        axis: Axis,
    ) -> tuple[Float[Array, ""], Terms, Tree, Tree]:
        """Triplet loss, and ``recon_weight`` times the distance of true pairs from rebuilt ones."""
        total, terms, stats, memory = super().loss(
            variables, codes, row, step=step, keys=keys, axis=axis
        )
        if not self.recon_weight:
            return total, terms, stats, memory

        def distances(images: Codes, texts: Codes) -> Float[Array, "I C"]:
            image_distances = self._alignment(variables, "image").distance(images, texts)
            text_distances = self._alignment(variables, "text").distance(texts, images).T
            return (image_distances + text_distances) / 2

        each = score_given_pairs(distances, codes["image"], codes["text"])
        count = jnp.sum(axis.gather(row["valid"]), dtype=jnp.float32)
        mean = axis.sum(jnp.sum(jnp.where(row["valid"], each, 0.0))) / count
        terms["reconstruction"] = mean
        return total + self.recon_weight * mean, terms, stats, memory

    # --- sizes, inputs, parameters and checks -------------------------------------------------

    def decide(self, plan: Plan) -> dict[str, Any]:
        """Sizes; without boxes in the data there is no box affinity."""
        return super().decide(plan) | {"boxes": self.boxes and "boxes" in plan.features["image"]}

    def inputs(self) -> dict[str, dict[str, Feature]]:
        """Regions and tokens; boxes, object and attribute ids if the data has them."""
        features = super().inputs()
        if self.intra_graph and self.boxes:
            features["image"]["boxes"] = Feature((self.regions, 4), "float32", optional=True)
        return features

    def init_pair(self, keys: list[Array]) -> Tree:
        """Parameters of the cross-graph and of both heads."""
        k_cross, *k_heads = keys
        named = zip(self.modalities, k_heads, strict=True)
        params = {"heads": {m: init_head(k, self.heads) for m, k in named}}
        return params | ({"cross": self._cross().init(k_cross)} if self.reconstruction else {})

    def parts(self) -> Parts:
        """Encoders, word and class vectors and graphs within them, the cross-graph, the heads."""
        graphs = {"graphs": ("image/graph", "text/graph")} if self.intra_graph else {}
        cross = {"cross": ("cross",)} if self.reconstruction else {}
        return {**super().parts(), **graphs, **cross, "heads": ("heads",)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.heads:
            raise UserError(
                f"model.heads is {self.heads}, which does not divide model.dim, {self.dim}: "
                "choose a divisor."
            )
