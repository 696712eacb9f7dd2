"""ReSG: relationship-enhanced semantic graphs (IEEE T. Cybernetics 54(2), 2024).

Regions and words reason over graphs whose edges are features of their own: how two regions look
and lie to one another, which relation two words stand in. A recurrent read-out puts the nodes of
an item in a contextual order. Nodes of one item then attend to those of the other, and three losses
train what comes of it: a triplet loss on the hardest negatives, a hinge around the centres of
images, and thresholds for positives and negatives. Only the paper's abstract could be read; what
it leaves open follows the specification's section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import l2n, masked_mean
from hmgr_jax.layers.matching import Attention, Matcher, Matching
from hmgr_jax.layers.matching_blocks import in_blocks, regions_to_words, words_to_regions
from hmgr_jax.layers.matching_groups import GroupMatcher
from hmgr_jax.layers.matching_pairs import attend_in_pairs, score_in_pairs
from hmgr_jax.layers.matching_units import Unit
from hmgr_jax.layers.reading_order import ORDERS
from hmgr_jax.layers.reconstruction import init_head
from hmgr_jax.layers.regions import EMBEDDINGS, SCALES
from hmgr_jax.losses.centers import VARIANTS, center_hinge
from hmgr_jax.losses.mined import Hardest
from hmgr_jax.losses.thresholds import calibration, spread, threshold_hinge
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
from hmgr_jax.models.resg_towers import Encoded, RegionTower, WordTower
from hmgr_jax.shapes import Array, Float, Int, Tree

DIRECTIONS = ("t2i", "i2t")
HIDDEN = 32
"""Width of the network over the cosines of groups."""
CHOICES = {
    "region_scale": SCALES,
    "region_embedding": EMBEDDINGS,
    "text_support": ("auto", "dependency", "window", "full"),
    "text_edges": ("auto", "dependency", "distance"),
    "readout": ("gru", "attention", "none"),
    "region_order": ORDERS,
    "match": ("cosine", "groups"),
    "center_variant": VARIANTS,
}
NOT_NEGATIVE = (
    "object_classes attribute_classes region_hidden edge_dim graph_layers neighbours text_window "
    "sharpness slope global_weight margin triplet_weight center_weight center_margin "
    "threshold_weight"
)
AT_LEAST = {"dim": 1, "word_dim": 1, "groups": 1, **dict.fromkeys(NOT_NEGATIVE.split(), 0)}


@dataclass(frozen=True)
class ReSG(Model):
    """Hyper-parameters of ReSG; sizes of 0 come from the data, a warm-up of -1 is an epoch."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")

    dim: int = 1024
    word_dim: int = 300
    vocabulary_size: int = 0
    regions: int = 0
    region_dim: int = 0
    dtype: str = "float32"
    # fragments
    region_scale: str = "none"
    region_embedding: str = "linear"
    region_hidden: int = 0
    feature_dropout: float = 0.0
    region_dropout: float = 0.0
    word_dropout: float = 0.0
    vector_dropout: float = 0.0
    semantic_embed: bool = True
    """What a detector says of regions is added to them, where the data has it."""
    object_classes: int = 1600
    attribute_classes: int = 400
    # graphs
    visual_graph: bool = True
    text_graph: bool = True
    graph_layers: int = 2
    relation_edges: bool = True
    edge_dim: int = 0
    """Width of relations; 0 is a quarter of ``dim``."""
    neighbours: int = 0
    """Of a region: its so many strongest; 0 is all."""
    boxes: bool = True
    """Relations of regions know where the boxes lie, if the data has boxes."""
    text_support: str = "auto"
    """``auto`` is dependency where the data has word graphs, else a window."""
    text_window: int = 3
    text_edges: str = "auto"
    """``auto`` is dependency where the data has word graphs, else the signed distance."""
    residual_gain: float = 0.0
    # contextual order
    readout: str = "gru"
    region_order: str = "file"
    pool_dropout: float = 0.4
    # matching
    sharpness: float = 9.0
    slope: float = 0.1
    match: str = "cosine"
    groups: int = 16
    global_weight: float = 1.0
    # losses
    margin: float = 0.2
    triplet_weight: float = 1.0
    center_weight: float = 0.1
    center_margin: float = 0.2
    center_variant: str = "triplet"
    center_stop_gradient: bool = False
    threshold_weight: float = 0.5
    positive_threshold: float = 0.7
    negative_threshold: float = 0.5
    sum_warmup_steps: int = -1
    mask_same_image: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST)
        if self.match == "groups" and self.dim % self.groups:
            raise UserError(
                f"model.groups is {self.groups}, which does not divide model.dim {self.dim}: "
                "choose a divisor."
            )
        if self.readout == "none" and self.center_weight:
            raise UserError(
                "model.readout is none, so there are no vectors to centre: set model.center_weight "
                f"to 0 (it is {self.center_weight})."
            )
        if self.threshold_weight and self.negative_threshold > self.positive_threshold:
            raise UserError(
                f"model.negative_threshold is {self.negative_threshold}, above the "
                f"{self.positive_threshold} of model.positive_threshold: lower it."
            )

    def fit_to(self, plan: Plan) -> ReSG:
        """Sizes from the data, and word graphs where it has them."""
        found = plan.features["image"]
        regions, region_dim = found["regions"]
        parsed = "heads" in plan.features["text"]
        support, edges = self.text_support, self.text_edges
        warmup = plan.steps_per_epoch if self.sum_warmup_steps < 0 else self.sum_warmup_steps
        return replace(
            self,
            vocabulary_size=self.vocabulary_size or plan.vocabulary_size,
            regions=self.regions or regions,
            region_dim=self.region_dim or region_dim,
            object_classes=self.object_classes if "labels" in found else 0,
            attribute_classes=self.attribute_classes if "attributes" in found else 0,
            text_support=("dependency" if parsed else "window") if support == "auto" else support,
            text_edges=("dependency" if parsed else "distance") if edges == "auto" else edges,
            sum_warmup_steps=warmup,
        )

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Regions, boxes where there are any, tokens, and arcs between words where wanted."""
        found = regions_and_tokens(self.regions, self.region_dim)
        for name, count in self.classes().items():
            found["image"][name] = Feature((self.regions,), "int16", optional=True, below=count)
        ordered = self.readout == "gru" and self.region_order != "file"
        if ordered or (self.boxes and self._relations_of("image")):
            found["image"]["boxes"] = Feature((self.regions, 4), "float32", optional=not ordered)
        if self.text_graph and self.graph_layers:
            edges = self.text_edges if self.relation_edges else "none"
            sure = "dependency" in (self.text_support, edges)
            if sure or "auto" in (self.text_support, edges):  # until the data decides
                found["text"]["heads"] = Feature((None,), "int32", optional=not sure)
            if edges in ("auto", "dependency"):
                found["text"]["relations"] = Feature((None,), "int32", optional=edges == "auto")
        return found

    def classes(self) -> dict[str, int]:
        """{input: classes} of what is embedded besides features."""
        found = {"labels": self.object_classes, "attributes": self.attribute_classes}
        return {name: n for name, n in found.items() if n} if self.semantic_embed else {}

    def _relations_of(self, modality: str) -> bool:
        graph = self.visual_graph if modality == "image" else self.text_graph
        return bool(graph and self.graph_layers and self.relation_edges)

    def parts(self) -> Parts:
        """Encoders, the word vectors, graphs and read-outs within them, and what compares nodes."""
        parts: dict[str, tuple[str, ...]] = {
            "image": ("image",),
            "text": ("text",),
            "words": ("text/words/vectors",),
        }
        parts |= {name: (f"image/classes/{name}/vectors",) for name in self.classes()}
        graphs = [t for t, on in (("image", self.visual_graph), ("text", self.text_graph)) if on]
        if graphs and self.graph_layers:
            layers = range(self.graph_layers)
            parts["graphs"] = tuple(f"{t}/graph{layer}" for t in graphs for layer in layers)
        if self.readout != "none":
            parts["readout"] = ("image/readout", "text/readout")
        return parts | ({"heads": ("heads",)} if self.match == "groups" else {})

    # --- one item -----------------------------------------------------------------------------

    def _tower(self, modality: str) -> nn.Module:
        return RegionTower(self) if modality == "image" else WordTower(self)

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; nothing outlives a batch."""
        k_image, k_text, *k_heads = jax.random.split(key, 4)
        items = {m: example(features) for m, features in self.inputs().items()}
        params = {
            "image": self._tower("image").init(k_image, items["image"], None)["params"],
            "text": self._tower("text").init(k_text, items["text"], None)["params"],
        }
        if self.match == "groups":
            heads = zip(DIRECTIONS, k_heads, strict=True)
            params["heads"] = {name: init_head(k, self.groups, HIDDEN) for name, k in heads}
        return Variables(params, None, None, tables)

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """``nodes`` [B, N, D] of unit length, their ``mask`` and ``gram`` matrix, ``vector``."""
        keys = keys.named(modality) if train and keys is not None else None
        x, mask, vector, _ = self._encoded(variables, modality, items, keys)
        nodes = l2n(x)
        gram = einsum("bnd,bmd->bnm", nodes, nodes, dtype=jnp.dtype(self.dtype))
        codes = {"nodes": nodes, "mask": mask, "gram": gram}
        return codes | ({} if vector is None else {"vector": vector}), variables.stats

    def _encoded(
        self, variables: Variables, modality: str, items: Items, keys: Keys | None
    ) -> Encoded:
        found: Any = self._tower(modality).apply(
            {"params": variables.params[modality]}, items, keys
        )
        return found

    def relations(
        self, variables: Variables, modality: str, items: Items
    ) -> Float[Array, "B K N N"] | None:
        """How much each node looks at each other one, in every graph layer."""
        weights = self._encoded(variables, modality, items, None).weights
        return jnp.stack(weights, axis=1) if weights else None

    # --- a pair -------------------------------------------------------------------------------

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """S = s_t2i + s_i2t + μ s_glob (spec 5.5)."""
        if a[0] == "text":
            return self.score(variables, b, a).T
        images, texts = a[1], b[1]
        t2i, i2t = (self._matcher(variables, direction) for direction in DIRECTIONS)

        def of_pictures(some: Codes) -> Array:
            return words_to_regions(t2i, some, texts) + regions_to_words(i2t, some, texts)

        found = in_blocks(of_pictures, images)[0]
        if self.readout == "none":
            return found
        return found + self.global_weight * einsum("id,cd->ic", images["vector"], texts["vector"])

    def score_pairs(self, variables: Variables, images: Codes, texts: Codes) -> Float[Array, " P"]:
        """``score`` of each picture with the caption beside it."""
        t2i, i2t = (self._matcher(variables, direction) for direction in DIRECTIONS)
        found = score_in_pairs(t2i, texts, images)[0] + score_in_pairs(i2t, images, texts)[0]
        if self.readout == "none":
            return found
        return found + self.global_weight * jnp.sum(images["vector"] * texts["vector"], axis=1)

    def _matcher(self, variables: Variables, direction: str) -> Matching:
        attention = Attention(self.sharpness, slope=self.slope, dtype=jnp.dtype(self.dtype))
        if self.match == "groups":
            return GroupMatcher(attention, variables.params["heads"][direction], self.groups)
        return Matcher(attention, Unit(self.dim, "add"), {}, steps=1)

    def explain(self, variables: Variables, image: Codes, text: Codes) -> Explanation:
        """Which regions the words of one pair correspond to, and the reverse."""
        attention = {}
        for direction, sides in (("t2i", (text, image)), ("i2t", (image, text))):
            worth, weights = attend_in_pairs(self._matcher(variables, direction), *sides)
            attention[direction] = Attended(jnp.swapaxes(weights[:, 0], 1, 2), worth[:, 0])
        return Explanation(self.score_pairs(variables, image, text), attention)

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n E"]:
        """The mean node and the vector of the read-out, for a shortlist."""
        mean = l2n(masked_mean(jnp.asarray(codes["nodes"]), jnp.asarray(codes["mask"])))
        if self.readout == "none":
            return mean
        shares = (2.0**0.5 * mean, self.global_weight**0.5 * jnp.asarray(codes["vector"]))
        return jnp.concatenate(shares, axis=1)

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
        """Triplet, center hinge and thresholds (spec 5.6), each device scoring its own images."""
        valid, group = axis.gather((row["valid"], row["group"]))
        ranking, found = self._ranking(variables, codes, valid, group, step, axis)
        similarity = found.scaled(1.0 / self._highest())
        terms = {"triplet": ranking, "hardest": found.triplet(self.margin)}
        total = self.triplet_weight * ranking
        if self.threshold_weight:
            terms["thresholds"] = threshold_hinge(
                similarity, valid, above=self.positive_threshold, below=self.negative_threshold
            )
            total = total + self.threshold_weight * terms["thresholds"]
        if self.center_weight:
            terms["centers"] = center_hinge(
                codes["image"]["vector"],
                codes["text"]["vector"],
                row["valid"],
                row["group"],
                axis,
                margin=self.center_margin,
                variant=self.center_variant,
                stop_gradient=self.center_stop_gradient,
            )
            total = total + self.center_weight * terms["centers"]
        return total, terms | spread(similarity, valid), variables.stats, None

    def _highest(self) -> float:
        """The score of a perfect pair: S̄ is S divided by it."""
        return 2.0 + (self.global_weight if self.readout != "none" else 0.0)

    def _ranking(
        self,
        variables: Variables,
        codes: Mapping[str, Codes],
        valid: Array,
        group: Array,
        step: Array,
        axis: Axis,
    ) -> tuple[Float[Array, ""], Hardest]:
        """The triplet loss, over all negatives first, and the scores of the hardest ones."""
        is_negative = negatives(valid, group if self.mask_same_image else None)

        def score(params: Tree, images: Codes, texts: Codes) -> Array:
            return self.score(replace(variables, params=params), ("image", images), ("text", texts))

        def pairs(params: Tree, images: Codes, texts: Codes) -> Array:
            return self.score_pairs(replace(variables, params=params), images, texts)

        batch = variables.params, codes["image"], codes["text"]
        return warmed_ranking(
            score,
            pairs,
            batch,
            is_negative,
            axis,
            margin=self.margin,
            step=step,
            warmup=self.sum_warmup_steps,
        )

    def remark(self, report: Mapping[str, float]) -> str | None:
        """Where the similarities lie after the first epoch, to set the thresholds by."""
        if not self.threshold_weight:
            return None
        return calibration(report, self.positive_threshold, self.negative_threshold)
