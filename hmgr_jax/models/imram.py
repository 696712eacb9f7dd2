"""IMRAM: iterative matching with recurrent attention memory (CVPR 2020), and SCAN as its preset.

Words attend to regions (t2i), or regions to words (i2t), or both; what a fragment attended to
refines it, and the next step attends anew. The score is the sum over steps of the mean cosine of
each original fragment with what it attended to. Everything linear in one item is part of its code,
so only steps after the first multiply something that belongs to the pair by a matrix (spec 2.9).
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
from hmgr_jax.layers.matching import RAW_NORMS, Attention, Matcher
from hmgr_jax.layers.matching_blocks import in_blocks, regions_to_words, words_to_regions
from hmgr_jax.layers.matching_pairs import attend_in_pairs, score_in_pairs
from hmgr_jax.layers.matching_units import UNITS, Unit
from hmgr_jax.layers.regions import SCALES, RegionEmbedding, read_regions
from hmgr_jax.losses.triplet import negatives
from hmgr_jax.losses.warmed import warmed_ranking
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
    example,
    regions_and_tokens,
)
from hmgr_jax.models.ranges import check_ranges
from hmgr_jax.models.text_side import TEXTS, ReadsWords, word_states
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

VARIANTS = {"full": ("t2i", "i2t"), "text": ("t2i",), "image": ("i2t",)}
"""Directions of a variant: queries to contexts."""
CHOICES = {
    "variant": tuple(VARIANTS),
    "text": TEXTS,
    "unit": UNITS,
    "raw_norm": RAW_NORMS,
    "region_scale": SCALES,
    "region_embedding": ("linear", "weight_norm"),  # basic and weight_norm in the released code
}
AT_LEAST = {"dim": 1, "word_dim": 1, "steps": 1, "score_step": 0, "sharpness": 0.0, "slope": 0.0}


@dataclass(frozen=True)
class IMRAM(ReadsWords):
    """Hyper-parameters of IMRAM; sizes of 0 come from the data."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")

    variant: str = "full"
    text: str = "gru"  # or "bert"
    steps: int = 3
    dim: int = 1024
    word_dim: int = 300
    vocabulary_size: int = 0
    regions: int = 0
    region_dim: int = 0
    dtype: str = "float32"
    # fragments
    region_scale: str = "none"
    region_embedding: str = "linear"
    feature_dropout: float = 0.0
    region_dropout: float = 0.0
    word_dropout: float = 0.0
    vector_dropout: float = 0.0
    # matching
    sharpness: float = 9.0
    raw_norm: str = "clipped_l2norm"
    slope: float = 0.1
    unit: str = "gate_full"
    memory_norm: bool = False
    score_step: int = 0
    """0 sums the scores of all steps, k takes those of step k alone."""
    # loss
    margin: float = 0.2
    sum_warmup_steps: int = 0
    """So long all negatives count, and then the hardest; `warmed.TO_THE_END`: to the end."""
    mask_same_image: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST)
        self.check_bert()
        if self.score_step > self.steps:
            raise UserError(
                f"model.score_step is {self.score_step}, but there are {self.steps} matching steps:"
                " lower it, or leave it at 0 for their sum."
            )

    def fit_to(self, plan: Plan) -> IMRAM:
        """Sizes from the data; a warm-up of -1 lasts an epoch."""
        regions, region_dim = plan.features["image"]["regions"]
        warmup = plan.steps_per_epoch if self.sum_warmup_steps < 0 else self.sum_warmup_steps
        return replace(
            self,
            vocabulary_size=self.vocabulary_size or plan.vocabulary_size,
            regions=self.regions or regions,
            region_dim=self.region_dim or region_dim,
            sum_warmup_steps=warmup,
        )

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Regions and tokens."""
        return regions_and_tokens(self.regions, self.region_dim)

    def parts(self) -> Parts:
        """Encoders, the word vectors within the text encoder, and the units where there are any."""
        parts = {"image": ("image",), **self.text_parts()}
        return parts | ({"units": ("units",)} if self._directions_with_parameters() else {})

    def _directions_with_parameters(self) -> tuple[str, ...]:
        return VARIANTS[self.variant] if self.steps > 1 and self.unit != "add" else ()

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; nothing outlives a batch."""
        k_image, k_text, *k_units = jax.random.split(key, 4)
        items = {m: example(features) for m, features in self.inputs().items()}
        params = {
            "image": RegionTower(self).init(k_image, items["image"], None)["params"],
            "text": WordTower(self).init(k_text, items["text"], None)["params"],
        }
        directions = self._directions_with_parameters()
        if directions:
            params["units"] = {
                name: self._unit().init(k)
                for name, k in zip(("t2i", "i2t"), k_units, strict=True)
                if name in directions
            }
        return Variables(params, None, None, tables)

    def _unit(self) -> Unit:
        return Unit(self.dim, self.unit, self.memory_norm, jnp.dtype(self.dtype))

    def _unit_params(self, variables: Variables, direction: str) -> Tree:
        return variables.params.get("units", {}).get(direction, {})

    # --- one item -----------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """Unit fragments, and everything of a pair that is linear in one of its items.

        ``nodes`` [B, N, D] and ``mask`` [B, N]; as a query ``query``, each [B, N, P]; as a context
        ``gram`` [B, N, N] and ``context``, each [B, N, C] (what the units see of it).
        """
        keys = keys.named(modality) if train and keys is not None else None
        tower = RegionTower(self) if modality == "image" else WordTower(self)
        nodes: Any
        nodes, mask = tower.apply({"params": variables.params[modality]}, items, keys)
        codes = {"nodes": nodes, "mask": mask}
        unit, dtype = self._unit(), jnp.dtype(self.dtype)
        for direction in VARIANTS[self.variant]:
            params = self._unit_params(variables, direction)
            if (direction == "t2i") == (modality == "image"):
                codes["gram"] = einsum("bnd,bmd->bnm", nodes, nodes, dtype=dtype)
                if self.steps > 1:
                    codes["context"] = unit.context(params, nodes)
            elif self.steps > 1:
                codes["query"] = unit.query(params, nodes)
        return codes, variables.stats

    # --- a pair -------------------------------------------------------------------------------

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """Sum over steps and directions of mean cosines (spec 2.4)."""
        if a[0] == "text":
            return self.score(variables, b, a).T
        return self._over_steps(self.step_scores(variables, a[1], b[1]))

    def _over_steps(self, scores: Float[Array, "K *pairs"]) -> Float[Array, "*pairs"]:
        return jnp.sum(scores, axis=0) if not self.score_step else scores[self.score_step - 1]

    def step_scores(
        self, variables: Variables, images: Codes, texts: Codes
    ) -> Float[Array, "K I C"]:
        """Scores of every matching step, its directions added up."""

        def of_pictures(some: Codes) -> Array:
            found = []
            for direction in VARIANTS[self.variant]:
                between = words_to_regions if direction == "t2i" else regions_to_words
                found.append(between(self._matcher(variables, direction), some, texts))
            return sum(found[1:], start=found[0])

        return in_blocks(of_pictures, images)

    def score_pairs(self, variables: Variables, images: Codes, texts: Codes) -> Float[Array, " P"]:
        """``score`` of each picture with the caption beside it."""
        found = []
        for direction, (queries, contexts) in self._sides(images, texts).items():
            found.append(score_in_pairs(self._matcher(variables, direction), queries, contexts))
        return self._over_steps(sum(found[1:], start=found[0]))

    def explain(self, variables: Variables, image: Codes, text: Codes) -> Explanation:
        """Weights and cosines of the words or regions of one pair, in every direction."""
        attention = {}
        for direction, (query, context) in self._sides(image, text).items():
            matcher = self._matcher(variables, direction)
            cosines, weights = attend_in_pairs(matcher, query, context)
            attention[direction] = Attended(jnp.swapaxes(weights[:, 0], 1, 2), cosines[:, 0])
        return Explanation(self.step_scores(variables, image, text)[:, 0, 0], attention)

    def _sides(self, images: Codes, texts: Codes) -> dict[str, tuple[Codes, Codes]]:
        """{direction: (queries, contexts)} of the variant."""
        both = {"t2i": (texts, images), "i2t": (images, texts)}
        return {direction: both[direction] for direction in VARIANTS[self.variant]}

    def _matcher(self, variables: Variables, direction: str) -> Matcher:
        attention = Attention(self.sharpness, self.raw_norm, self.slope, jnp.dtype(self.dtype))
        params = self._unit_params(variables, direction)
        return Matcher(attention, self._unit(), params, self.steps)

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n D"]:
        """The mean fragment, of unit length: for a shortlist."""
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
        """Triplet loss over the batch's scores, each device scoring its own images."""
        valid, group = axis.gather((row["valid"], row["group"]))
        is_negative = negatives(valid, group if self.mask_same_image else None)

        def score(params: Tree, images: Codes, texts: Codes) -> Array:
            return self.score(replace(variables, params=params), ("image", images), ("text", texts))

        def pairs(params: Tree, images: Codes, texts: Codes) -> Array:
            return self.score_pairs(replace(variables, params=params), images, texts)

        total, found = warmed_ranking(
            score,
            pairs,
            (variables.params, codes["image"], codes["text"]),
            is_negative,
            axis,
            margin=self.margin,
            step=step,
            warmup=self.sum_warmup_steps,
        )
        terms = {"triplet": total, "hardest": found.triplet(self.margin)}
        return total, terms, variables.stats, None


class RegionTower(nn.Module):
    """Regions to unit fragments (spec 1.2)."""

    model: IMRAM

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None
    ) -> tuple[Float[Array, "B R D"], Bool[Array, "B R"]]:
        """Embed every region."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask = read_regions(items, m.region_scale, m.region_dropout, m.feature_dropout, keys)
        x = RegionEmbedding(m.dim, m.region_embedding, dtype=dtype, name="regions")(x)
        return l2n(x), mask


class WordTower(nn.Module):
    """Words to unit fragments (spec 1.3)."""

    model: IMRAM

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """Encode every word in its caption."""
        x, mask = word_states(self.model, items, keys)
        return l2n(x), mask
