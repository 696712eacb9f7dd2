"""RACG: relation-aggregated cross-graph (TNNLS 35(2), 2024), on the equations of CGAM (SIGIR 2021).

The nodes of an item reason over a graph of their own (4.3); a pair's nodes, regions and words
together, are related to one another in four blocks (4.4), every node is rebuilt from what came of
it (4.5), and the score is how well that went, by groups of features (4.6). Only RACG's abstract
could be read: see BUILD_NOTES.md for what is CGAM's and what is ours. ``racg`` rebuilds a node from
the other side alone, by cosines; ``racg_strict`` from both, by plain products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers.alignment import SOURCES, Alignment
from hmgr_jax.layers.classes import ClassEmbedding
from hmgr_jax.layers.cross_graph import CrossGraph
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.graph import GraphReasoning, full_support
from hmgr_jax.layers.masking import l2n, masked_mean
from hmgr_jax.layers.pair_blocks import aligned_pairs, all_pairs
from hmgr_jax.layers.reconstruction import HEADS, LOGITS, Rebuilding, head_lengths, init_head
from hmgr_jax.layers.regions import SCALES, RegionEmbedding, read_regions
from hmgr_jax.layers.words import WordEncoder
from hmgr_jax.losses.triplet import negatives
from hmgr_jax.losses.warmed import warmed_ranking
from hmgr_jax.models.base import (
    Attended,
    Axis,
    Codes,
    Explanation,
    Feature,
    Items,
    Model,
    Parts,
    Plan,
    Terms,
    Variables,
    example,
    regions_and_tokens,
)
from hmgr_jax.models.ranges import check_ranges
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

CHOICES = {
    "region_scale": SCALES,
    "recon_source": SOURCES,
    "recon_logit": LOGITS,
    "sim_head": HEADS,
}
AT_LEAST = {
    "dim": 1,
    "word_dim": 1,
    "object_classes": 0,
    "attribute_classes": 0,
    "text_distance": 0,
    "sharpness": 0.0,
    "heads": 1,
    "head_hidden": 1,
    "recon_weight": 0.0,
    "sum_warmup_steps": -1,
}


@dataclass(frozen=True)
class RACG(Model):
    """Hyper-parameters of RACG; sizes of 0 come from the data, a warm-up of -1 lasts an epoch."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")

    dim: int = 1024
    word_dim: int = 300
    vocabulary_size: int = 0
    regions: int = 0
    region_dim: int = 0
    dtype: str = "float32"
    # fragments
    region_scale: str = "none"
    feature_dropout: float = 0.0
    region_dropout: float = 0.0
    word_dropout: float = 0.0
    vector_dropout: float = 0.0
    semantic_embed: bool = True
    """What a detector says of regions is added to them, where the data has it."""
    object_classes: int = 1600
    attribute_classes: int = 400
    # graphs within an item
    intra_graph: bool = True
    boxes: bool = True
    """Where boxes lie to one another counts in the graph of regions, where the data has them."""
    text_distance: int = 0
    """Up to so far apart, distance counts in the graph of words; 0: it does not."""
    residual_gain: float = 0.0
    # the graph of a pair
    inter_blocks: bool = True
    intra_blocks: bool = True
    reconstruction: bool = True
    """Off: nodes are compared with what they attend to on the other side, as in SCAN."""
    recon_source: str = "cross"
    recon_logit: str = "cos"
    sharpness: float = 10.0
    heads: int = 16
    head_hidden: int = 32
    sim_head: str = "mlp"
    # loss
    margin: float = 0.2
    recon_weight: float = 0.0
    """Of 1 - cos(node, rebuilt node), its mean over the true pairs' nodes (λ_rec)."""
    sum_warmup_steps: int = -1
    mask_same_image: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST)
        if self.dim % self.heads:
            raise UserError(
                f"model.heads is {self.heads}, which does not divide model.dim, {self.dim}: "
                "choose one that does."
            )

    def fit_to(self, plan: Plan) -> RACG:
        """Sizes from the data; what the data does not say of regions is done without."""
        found = plan.features["image"]
        regions, region_dim = found["regions"]
        warmup = plan.steps_per_epoch if self.sum_warmup_steps < 0 else self.sum_warmup_steps
        return replace(
            self,
            vocabulary_size=self.vocabulary_size or plan.vocabulary_size,
            regions=self.regions or regions,
            region_dim=self.region_dim or region_dim,
            object_classes=self.object_classes if "labels" in found else 0,
            attribute_classes=self.attribute_classes if "attributes" in found else 0,
            boxes=self.boxes and "boxes" in found,
            sum_warmup_steps=warmup,
        )

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Regions and tokens; boxes, object and attribute ids where there are any."""
        found = regions_and_tokens(self.regions, self.region_dim)
        for name, count in self.classes().items():
            found["image"][name] = Feature((self.regions,), "int16", optional=True, below=count)
        if self.intra_graph and self.boxes:
            found["image"]["boxes"] = Feature((self.regions, 4), "float32", optional=True)
        return found

    def classes(self) -> dict[str, int]:
        """{input: classes} of what is embedded besides features."""
        found = {"labels": self.object_classes, "attributes": self.attribute_classes}
        return {name: n for name, n in found.items() if n} if self.semantic_embed else {}

    def parts(self) -> Parts:
        """Encoders, word and class vectors and graphs within them, the pair's graph, the heads."""
        parts: dict[str, tuple[str, ...]] = {
            "image": ("image",),
            "text": ("text",),
            "words": ("text/words/vectors",),
        }
        parts |= {name: (f"image/classes/{name}/vectors",) for name in self.classes()}
        if self.intra_graph:
            parts["graphs"] = ("image/graph", "text/graph")
        parts |= {"cross": ("cross",)} if self.reconstruction else {}
        return parts | ({"heads": ("heads",)} if self.sim_head == "mlp" else {})

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; nothing outlives a batch."""
        k_image, k_text, k_cross, *k_heads = jax.random.split(key, 5)
        items = {m: example(features) for m, features in self.inputs().items()}
        params = {
            "image": RegionTower(self).init(k_image, items["image"], None)["params"],
            "text": WordTower(self).init(k_text, items["text"], None)["params"],
        }
        if self.reconstruction:
            params["cross"] = self._cross().init(k_cross)
        if self.sim_head == "mlp":
            params["heads"] = {
                m: init_head(k, self.heads, self.head_hidden)
                for m, k in zip(self.modalities, k_heads, strict=True)
            }
        return Variables(params, None, None, tables)

    def _cross(self) -> CrossGraph:
        dtype = jnp.dtype(self.dtype)
        return CrossGraph(self.dim, self.inter_blocks, self.intra_blocks, dtype)

    # --- one item -----------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """``nodes`` [B, N, D] of unit length, ``mask`` [B, N], ``lengths`` [B, N, K] of groups.

        With reconstruction also what `CrossGraph.of_item` says: all that is linear in one item.
        """
        keys = keys.named(modality) if train and keys is not None else None
        tower = RegionTower(self) if modality == "image" else WordTower(self)
        found: Any = tower.apply({"params": variables.params[modality]}, items, keys)
        mask = found[1]
        nodes = jnp.where(mask[:, :, None], found[0], 0.0)
        codes = {"nodes": nodes, "mask": mask, "lengths": head_lengths(nodes, self.heads)}
        if self.reconstruction:
            codes |= self._cross().of_item(variables.params["cross"], nodes, mask)
        return codes, variables.stats

    def relations(
        self, variables: Variables, modality: str, items: Items
    ) -> Float[Array, "B 1 N N"] | None:
        """How much each node looks at each other one of its own item."""
        if not self.intra_graph:
            return None
        tower = RegionTower(self) if modality == "image" else WordTower(self)
        given = {"params": variables.params[modality]}
        _, found = tower.apply(given, items, None, mutable="intermediates")
        return found["intermediates"]["graph"]["weights"][0][:, None]

    # --- a pair -------------------------------------------------------------------------------

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """Mean similarity of regions and of words with what they are rebuilt as, added up."""
        if a[0] == "text":
            return self.score(variables, b, a).T
        return all_pairs(lambda x, y: self.score_block(variables, x, y), a[1], b[1])

    def score_pairs(self, variables: Variables, images: Codes, texts: Codes) -> Float[Array, " P"]:
        """``score`` of each picture with the caption beside it."""
        return aligned_pairs(lambda x, y: self.score_block(variables, x, y), images, texts)

    def score_block(self, variables: Variables, images: Codes, texts: Codes) -> Float[Array, "I C"]:
        """``score`` of a few pictures with a few captions, all at once."""
        of_images = self._alignment(variables, "image").score(images, texts)
        return of_images + self._alignment(variables, "text").score(texts, images).T

    def _alignment(self, variables: Variables, modality: str) -> Alignment:
        rebuilding = Rebuilding(self.sharpness, self.recon_logit, jnp.dtype(self.dtype))
        head = variables.params["heads"][modality] if self.sim_head == "mlp" else None
        cross = self._cross() if self.reconstruction else None
        return Alignment(rebuilding, self.recon_source, cross, head)

    def explain(self, variables: Variables, image: Codes, text: Codes) -> Explanation:
        """How much of which node of the other side every node is rebuilt from, and how well."""
        sides = {"t2i": ("text", text, image), "i2t": ("image", image, text)}
        attention = {}
        for direction, (modality, own, other) in sides.items():
            weights, cosines = self._alignment(variables, modality).correspondence(own, other)
            attention[direction] = Attended(weights[0], cosines[0])
        return Explanation(self.score_block(variables, image, text)[0], attention)

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n D"]:
        """The mean node, of unit length: for a shortlist."""
        return l2n(masked_mean(jnp.asarray(codes["nodes"]), jnp.asarray(codes["mask"])))

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
        """Triplet loss over the batch's scores, and λ_rec times the distance of what is rebuilt."""
        valid, group = axis.gather((row["valid"], row["group"]))

        def score(params: Tree, images: Codes, texts: Codes) -> Array:
            return self.score(replace(variables, params=params), ("image", images), ("text", texts))

        def pairs(params: Tree, images: Codes, texts: Codes) -> Array:
            return self.score_pairs(replace(variables, params=params), images, texts)

        total, found = warmed_ranking(
            score,
            pairs,
            (variables.params, codes["image"], codes["text"]),
            negatives(valid, group if self.mask_same_image else None),
            axis,
            margin=self.margin,
            step=step,
            warmup=self.sum_warmup_steps,
        )
        terms = {"triplet": total, "hardest": found.triplet(self.margin)}
        if not self.recon_weight:
            return total, terms, variables.stats, None
        distances = aligned_pairs(
            lambda x, y: self._distance_of_block(variables, x, y), codes["image"], codes["text"]
        )
        count = jnp.sum(valid, dtype=jnp.float32)
        away = axis.sum(jnp.sum(jnp.where(row["valid"], distances, 0.0))) / count
        terms["reconstruction"] = away
        return total + self.recon_weight * away, terms, variables.stats, None

    def _distance_of_block(
        self, variables: Variables, images: Codes, texts: Codes
    ) -> Float[Array, "I C"]:
        """1 - cos(node, rebuilt node), its mean over regions and over words, halved."""
        of_images = self._alignment(variables, "image").distance(images, texts)
        return (of_images + self._alignment(variables, "text").distance(texts, images).T) / 2


class RegionTower(nn.Module):
    """Regions to unit nodes (spec 1.2, 4.2, 4.3)."""

    model: RACG

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None
    ) -> tuple[Float[Array, "B R D"], Bool[Array, "B R"]]:
        """Embed every region with what it is called, and reason."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask = read_regions(items, m.region_scale, m.region_dropout, m.feature_dropout, keys)
        x = RegionEmbedding(m.dim, dtype=dtype, name="regions")(x)
        if m.classes():
            x = x + ClassEmbedding(m.classes(), m.word_dim, m.dim, dtype, name="classes")(items)
        x = l2n(x)
        if m.intra_graph:
            boxes = items.get("boxes") if m.boxes else None
            x = l2n(_graph(m, boxes=boxes is not None)(x, full_support(mask), boxes))
        return x, mask


class WordTower(nn.Module):
    """Words to unit nodes (spec 1.3, 4.3)."""

    model: RACG

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """Encode every word in its caption, and reason."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        words = WordEncoder(
            m.vocabulary_size,
            m.word_dim,
            m.dim,
            m.word_dropout,
            m.vector_dropout,
            dtype,
            name="words",
        )
        x, mask = words(items["tokens"], items["lengths"], keys)
        x = l2n(x)
        if m.intra_graph:
            x = l2n(_graph(m, furthest=m.text_distance)(x, full_support(mask)))
        return x, mask


def _graph(m: RACG, boxes: bool = False, furthest: int = 0) -> GraphReasoning:
    return GraphReasoning(
        m.dim,
        "softmax",
        boxes,
        gain=m.residual_gain,
        dtype=jnp.dtype(m.dtype),
        furthest=furthest,
        name="graph",
    )
