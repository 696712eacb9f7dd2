"""Base class of systems that compare an image and a caption fragment by fragment.

A system implements two methods and inherits everything else:

- ``tower(modality)``: the module that encodes items, (items, keys) to (nodes, mask);
- ``score_block(variables, images, texts)``: the scores [I, C] of a few images and a few captions.

    S = `score_matrix`: `score_block` over all pairs, in blocks of bounded memory
    s = `score_pairs`:  `score_block` of given pairs
    L = the ranking objective of S (`hmgr_jax.models.ranking`)

A system whose codes have more than nodes and mask overrides `to_codes`, and names the codes with a
node axis in ``node_codes``. A system with its own computation of all pairs overrides `score_matrix`
and `score_pairs` instead of `score_block`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.classes import ClassEmbedding
from hmgr_jax.layers.cross_attention import Matching
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.masking import l2n, masked_mean
from hmgr_jax.layers.matching import attend_in_pairs
from hmgr_jax.layers.pair_blocks import score_all_pairs, score_given_pairs
from hmgr_jax.layers.regions import SCALES, RegionEmbedding, read_regions
from hmgr_jax.layers.words import WordEncoder
from hmgr_jax.losses.contrastive import infonce
from hmgr_jax.losses.mined import Hardest, hardest_of, warmed_ranking
from hmgr_jax.losses.triplet import negatives
from hmgr_jax.models.base import (
    Attended,
    Axis,
    Codes,
    Feature,
    Items,
    Parts,
    Plan,
    Terms,
    Variables,
    example_item,
    regions_and_tokens,
)
from hmgr_jax.models.options import option
from hmgr_jax.models.ranking import Ranked
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree


@dataclass(frozen=True)
class PairScored(Ranked):
    """Common hyper-parameters; sizes of 0 come from the data."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    node_codes: ClassVar[tuple[str, ...]] = ("nodes", "mask")
    """Names of the codes [n, N, ...] whose second axis is the node axis."""
    pair_keys: ClassVar[int] = 2
    """Number of random keys of `init_pair`."""

    dim: int = option(1024, at_least=1)
    word_dim: int = option(300, at_least=1)
    vocabulary_size: int = 0
    regions: int = 0
    region_dim: int = 0
    dtype: str = "float32"
    region_scale: str = option("none", choices=SCALES)
    feature_dropout: float = 0.0
    region_dropout: float = 0.0
    word_dropout: float = 0.0
    vector_dropout: float = 0.0

    # --- implemented by a system --------------------------------------------------------------

    def tower(self, modality: str) -> nn.Module:
        """The encoder of a modality: (items, keys) to (nodes [B, N, D], mask [B, N])."""
        raise NotImplementedError

    def to_codes(self, variables: Variables, modality: str, encoded: Any) -> Codes:
        """Codes from the output of the tower: a dict with ``nodes`` and ``mask``."""
        return {"nodes": encoded[0], "mask": encoded[1]}

    def score_block(self, variables: Variables, images: Codes, texts: Codes) -> Float[Array, "I C"]:
        """Scores of a few images with a few captions, in one block."""
        raise NotImplementedError

    def init_pair(self, keys: list[Array]) -> Tree:
        """Parameters of the comparison, {name: tree}, from ``pair_keys`` keys; by default none."""
        return {}

    # --- encode and score ---------------------------------------------------------------------

    def apply_tower(
        self, variables: Variables, modality: str, items: Items, keys: Keys | None, **options: Any
    ) -> Any:
        """The output of the tower for a batch of items."""
        parameters = {"params": variables.params[modality]}
        return self.tower(modality).apply(parameters, items, keys, **options)

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """The codes of `to_codes`; statistics are unchanged."""
        keys = keys.named(modality) if train and keys is not None else None
        encoded = self.apply_tower(variables, modality, items, keys)
        return self.to_codes(variables, modality, encoded), variables.stats

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """`score_matrix`, or its transpose if captions come first."""
        if a[0] == "text":
            return self.score(variables, b, a).T
        return self.score_matrix(variables, a[1], b[1])

    def score_matrix(
        self, variables: Variables, images: Codes, texts: Codes
    ) -> Float[Array, "I C"]:
        """Scores of all images with all captions."""
        return score_all_pairs(
            lambda x, y: self.score_block(variables, x, y), images, texts, self.node_codes
        )

    def score_pairs(self, variables: Variables, images: Codes, texts: Codes) -> Float[Array, " P"]:
        """Scores of each image with the caption of the same row."""
        return score_given_pairs(lambda x, y: self.score_block(variables, x, y), images, texts)

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
        """The ranking objective of the batch; each device scores its own images."""
        valid, group = axis.gather((row["valid"], row["group"]))
        total, hardest = self.rank(variables, codes, valid, group, step, axis)
        terms = {self.objective: total, "hardest": hardest.triplet(self.margin)}
        return total, terms, variables.stats, None

    @property
    def summed(self) -> frozenset[str]:
        """The terms of hinges; ``hardest`` is a sum with every objective."""
        return super().summed | {"hardest"}

    def rank(
        self,
        variables: Variables,
        codes: Mapping[str, Codes],
        valid: Bool[Array, " B"],
        group: Int[Array, " B"],
        step: Int[Array, ""],
        axis: Axis,
    ) -> tuple[Float[Array, ""], Hardest]:
        """The ranking objective, and the scores of the hardest negatives.

        Args:
            variables: the variables of the model.
            codes: local training codes of both modalities.
            valid: rows of the global batch that are not padding.
            group: image of each row of the global batch.
            step: the training step.
            axis: the devices.
        """

        def score(params: Tree, images: Codes, texts: Codes) -> Array:
            return self.score_matrix(replace(variables, params=params), images, texts)

        def score_pairs(params: Tree, images: Codes, texts: Codes) -> Array:
            return self.score_pairs(replace(variables, params=params), images, texts)

        is_negative = negatives(valid, group if self.mask_same_image else None)
        batch = (variables.params, codes["image"], codes["text"])
        if self.objective == "infonce":
            scores = axis.pair_rows(lambda a, b: score(batch[0], a, b), *batch[1:])
            temperature = self.current_temperature(variables.params)
            total = infonce(scores, is_negative, valid, temperature=temperature)
            return total, hardest_of(scores, is_negative)
        return warmed_ranking(
            score,
            score_pairs,
            batch,
            is_negative,
            axis,
            margin=self.margin,
            step=step,
            warmup=self.sum_warmup_steps,
        )

    # --- sizes, inputs and parameters ---------------------------------------------------------

    def fit_to(self, plan: Plan) -> PairScored:
        """This model with the hyper-parameters that `decide` returns."""
        return replace(self, **self.decide(plan))

    def decide(self, plan: Plan) -> dict[str, Any]:
        """Hyper-parameters set by the data: sizes, and a warm-up of one epoch in steps."""
        regions, region_dim = plan.features["image"]["regions"]
        return {
            "vocabulary_size": self.vocabulary_size or plan.vocabulary_size,
            "regions": self.regions or regions,
            "region_dim": self.region_dim or region_dim,
            "sum_warmup_steps": self.warmup_of(plan),
        }

    def inputs(self) -> dict[str, dict[str, Feature]]:
        """Regions and tokens."""
        return regions_and_tokens(self.regions, self.region_dim)

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters of the towers and of the comparison; there is no memory."""
        k_image, k_text, *k_pair = jax.random.split(key, 2 + self.pair_keys)
        items = {m: example_item(features) for m, features in self.inputs().items()}
        params = {
            m: self.tower(m).init(k, items[m], None)["params"]
            for m, k in (("image", k_image), ("text", k_text))
        }
        params |= self.init_pair(k_pair) | self.loss_params()
        return Variables(params, None, None, tables)

    def parts(self) -> Parts:
        """Both encoders, the word vectors within the text encoder, and the temperature."""
        towers = {"image": ("image",), "text": ("text",), "words": ("text/words/vectors",)}
        return {**towers, **self.loss_parts()}


@dataclass(frozen=True)
class ReadsDetections(PairScored):
    """A pair scorer that also reads the detected class and box of each region."""

    object_classes: int = option(1600, at_least=0)
    """Number of object classes; 0 if the data has no ``labels``."""
    attribute_classes: int = option(400, at_least=0)
    """Number of attribute classes; 0 if the data has no ``attributes``."""
    boxes: bool = True
    """Whether graphs of regions read boxes, if the data has boxes."""

    def classes(self) -> dict[str, int]:
        """{input: number of classes} of the class ids that are embedded."""
        numbers = {"labels": self.object_classes, "attributes": self.attribute_classes}
        return {name: number for name, number in numbers.items() if number}

    def decide(self, plan: Plan) -> dict[str, Any]:
        """Sizes; without class ids in the data there are no class embeddings."""
        found = plan.features["image"]
        return super().decide(plan) | {
            "object_classes": self.object_classes if "labels" in found else 0,
            "attribute_classes": self.attribute_classes if "attributes" in found else 0,
        }

    def inputs(self) -> dict[str, dict[str, Feature]]:
        """Regions and tokens, and class ids if the data has them."""
        features = super().inputs()
        for name, number in self.classes().items():
            ids = Feature((self.regions,), "int16", optional=True, num_classes=number)
            features["image"][name] = ids
        return features

    def parts(self) -> Parts:
        """Both encoders, word vectors and class vectors."""
        classes = {name: (f"image/classes/{name}/vectors",) for name in self.classes()}
        return {**super().parts(), **classes}


def embed_regions(
    m: ReadsDetections, items: Items, keys: Keys | None
) -> tuple[Float[Array, "B R D"], Bool[Array, "B R"]]:
    """F W + b + [E_object; E_attribute] W_s of every region, and the mask; in a compact module."""
    dtype = jnp.dtype(m.dtype)
    x, mask = read_regions(items, m.region_scale, m.region_dropout, m.feature_dropout, keys)
    x = RegionEmbedding(m.dim, dtype=dtype, name="regions")(x)
    if m.classes():
        x = x + ClassEmbedding(m.classes(), m.word_dim, m.dim, dtype, name="classes")(items)
    return x, mask


def encode_words(
    m: PairScored, items: Items, keys: Keys | None
) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
    """States of a bidirectional GRU, mean of both directions, and the mask; in a compact module."""
    states: tuple[Array, Array] = WordEncoder(
        m.vocabulary_size,
        m.word_dim,
        m.dim,
        m.word_dropout,
        m.vector_dropout,
        jnp.dtype(m.dtype),
        name="words",
    )(items["tokens"], items["lengths"], keys)
    return states


def explain_directions(
    matchers: Mapping[str, Matching], image: Codes, text: Codes
) -> dict[str, Attended]:
    """{direction: weights and similarities of the queries of one image and one caption}."""
    sides = {"t2i": (text, image), "i2t": (image, text)}
    attention = {}
    for direction, matcher in matchers.items():
        similarities, weights = attend_in_pairs(matcher, *sides[direction])
        attention[direction] = Attended(jnp.swapaxes(weights[:, 0], 1, 2), similarities[:, 0])
    return attention
