"""PCME: probabilistic cross-modal embedding (Chun et al., CVPR 2021), and PVSE as a setting of it.

A picture and a caption are Gaussians. In training J samples of either are drawn, and a pair matches
with the mean over pairs of samples of σ(κ (b - a d)), d their distance, a and b learnt: the soft
contrastive loss is its log-likelihood over all pairs of the batch. A picture comes as pixels,
through a ResNet whose batch norm spans all devices, or as a feature map or regions. With
``objective="triplet"`` on points (``img_probemb=txt_probemb=False``) of ``proposals`` K it is PVSE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers import resnet, similarities
from hmgr_jax.layers.batch_norm import STATS, Rows
from hmgr_jax.layers.dropout import Keys, uniform_numbers
from hmgr_jax.layers.gaussian_distances import OF_SIGMAS
from hmgr_jax.layers.probabilistic import SIGMA_HEADS, draw
from hmgr_jax.layers.recurrent import SENTENCE_POOLS
from hmgr_jax.layers.regions import SCALES
from hmgr_jax.losses import soft_contrastive as soft
from hmgr_jax.losses.triplet import negatives, triplet
from hmgr_jax.models.base import (
    Axis,
    Codes,
    Feature,
    Items,
    Model,
    Parts,
    Plan,
    Terms,
    Variables,
    example,
)
from hmgr_jax.models.pcme_towers import Gaussian, tower
from hmgr_jax.models.picture_side import picture_inputs, picture_parts, picture_sizes
from hmgr_jax.models.ranges import check_ranges
from hmgr_jax.shapes import Array, Float, Int, Tree

CHOICES = {
    "cnn": tuple(resnet.KINDS),
    "sigma_head": SIGMA_HEADS,
    "bigru_pool": SENTENCE_POOLS,
    "region_scale": SCALES,
    "kl_form": soft.KL_FORMS,
    "loss_norm": ("sum", "per_128"),
    "match": ("identity", "group"),
    "objective": ("soft_contrastive", "triplet"),
    "test_distance": similarities.NAMES,
}
_COUNTS = ("dim", "word_dim", "cnn_width", "samples_train", "samples_eval", "proposals")
AT_LEAST = dict.fromkeys(_COUNTS, 1) | {"vib_beta": 0, "uniform_lambda": 0, "uniform_rows": 2}


@dataclass(frozen=True)
class PCME(Model):
    """Hyper-parameters of PCME (of COCO); sizes of 0 come from the data."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")

    dim: int = 1024
    word_dim: int = 300
    vocabulary_size: int = 0
    picture_size: int = 0
    """Of pixels, where the data has them; then there are no regions."""
    regions: int = 0
    region_dim: int = 0
    dtype: str = "float32"
    # pictures
    cnn: str = "resnet152"
    cnn_width: int = 64
    cnn_small_stem: bool = False
    cnn_batch_stats: bool = True
    """Batch norm normalises by the batch in training, also where the CNN is frozen."""
    region_scale: str = "none"
    feature_dropout: float = 0.0
    region_dropout: float = 0.0
    # captions
    bigru_pool: str = "last_index"
    word_dropout: float = 0.0
    word_removal: float = 0.0
    """Share of a caption's words that training leaves out."""
    vector_dropout: float = 0.0
    # heads
    img_attention: bool = True
    txt_attention: bool = True
    img_probemb: bool = True
    txt_probemb: bool = True
    """False: the side is a point."""
    sigma_head: str = "plain"
    log_sigma_start: float = 0.0
    """Added to log σ."""
    proposals: int = 1
    samples_train: int = 7
    samples_eval: int = 7
    # loss
    objective: str = "soft_contrastive"
    match: str = "identity"
    """Which pairs of a batch match: those of a row, or all of equal group (an image's captions)."""
    init_scale: float = 15.0
    init_shift: float = 15.0
    logit_scale: float = 2.0
    vib_beta: float = 1e-5
    kl_form: str = "code"
    uniform_lambda: float = 0.0
    uniform_rows: int = 128
    uniform_replace: bool = False
    """Draw these rows with replacement, as the released code does."""
    loss_norm: str = "sum"
    margin: float = 0.2
    sum_warmup_steps: int = 0
    mask_same_image: bool = True
    """With ``triplet``, like the two before it."""
    # test
    test_distance: str = "matching_prob"

    def __post_init__(self) -> None:
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST, shares=("word_removal",))
        both, distance = self.img_probemb and self.txt_probemb, self.test_distance
        for field in ("init_scale", "logit_scale"):  # a score is divided by both
            if getattr(self, field) <= 0:
                raise UserError(
                    f"model.{field} must be above 0, not {getattr(self, field)}: raise it."
                )
        if self.dim % 2:
            raise UserError(f"model.dim is {self.dim}, half for each direction: make it even.")
        if distance in OF_SIGMAS and not both:
            raise UserError(
                f"model.test_distance {distance} needs a sigma on both sides: choose mean, or set "
                "model.img_probemb and model.txt_probemb."
            )
        if self.objective == "triplet" and (
            self.img_probemb or self.txt_probemb or distance not in ("mean", "proposals")
        ):
            raise UserError(
                "model.objective triplet is of points: set model.img_probemb and "
                "model.txt_probemb to false and model.test_distance to proposals."
            )
        if self.proposals > 1 and (self.objective != "triplet" or distance != "proposals"):
            raise UserError(
                f"model.proposals is {self.proposals}, which model.objective triplet and "
                "model.test_distance proposals alone can use: set these, or leave it at 1."
            )

    def fit_to(self, plan: Plan) -> PCME:
        """Sizes from the data: pixels where it has them, else regions."""
        warmup = plan.steps_per_epoch if self.sum_warmup_steps < 0 else self.sum_warmup_steps
        words = self.vocabulary_size or plan.vocabulary_size
        sizes = picture_sizes(self, plan.features["image"])
        return replace(self, vocabulary_size=words, sum_warmup_steps=warmup, **sizes)

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Pixels or regions, and tokens."""
        return picture_inputs(self)

    def parts(self) -> Parts:
        """Encoders, word vectors, scale and shift; the CNN and its stages where there is one."""
        return {
            "image": ("image",),
            "text": ("text",),
            "words": ("text/words/vectors",),
            "match": ("match",),  # nothing of the triplet loss, so that recipes fit both
            **picture_parts(self),
        }

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; running statistics where there is a CNN."""
        params: dict[str, Any] = {}
        stats: Tree = None
        keys = dict(zip(self.modalities, jax.random.split(key, 2), strict=True))
        for modality, features in self.inputs().items():
            made = tower(self, modality).init(keys[modality], example(features), None, None)
            params[modality] = made["params"]
            stats = {modality: made[STATS]} if STATS in made else stats
        if self.objective == "soft_contrastive":
            start = {"scale": self.init_scale, "shift": self.init_shift}
            params["match"] = {name: jnp.float32(value) for name, value in start.items()}
        return Variables(params, stats, None, tables)

    # --- one item -----------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """``mu`` [B, D], ``log_sigma`` [B, D] of a probabilistic side, ``samples`` [B, J, D].

        Samples are drawn by the keys' rows: batch positions in training, items at evaluation.
        """
        return self._encode(variables, modality, items, train, keys, None)

    def encode_batch(
        self,
        variables: Variables,
        items: Mapping[str, Items],
        row: Items,
        *,
        keys: Keys,
        axis: Axis,
    ) -> tuple[dict[str, Codes], Tree]:
        """Training codes of this device's rows; batch norm sees the valid ones of all devices."""
        codes, rows = {}, Rows(row["valid"], axis)
        for modality in self.modalities:
            codes[modality], stats = self._encode(
                variables, modality, items[modality], True, keys, rows
            )
            variables = replace(variables, stats=stats)
        return codes, variables.stats

    def gaussian(
        self,
        variables: Variables,
        modality: str,
        items: Items,
        keys: Keys | None = None,
        rows: Rows | None = None,
    ) -> tuple[Gaussian, Tree]:
        """The encoder's output, and the statistics after it."""
        given = {"params": variables.params[modality]}
        encoder: Any = tower(self, modality)
        if variables.stats is None or modality not in variables.stats:
            return encoder.apply(given, items, keys, rows), variables.stats
        given[STATS] = variables.stats[modality]
        found, changed = encoder.apply(given, items, keys, rows, mutable=[STATS])
        return found, {**variables.stats, modality: changed[STATS]}

    def _encode(
        self,
        variables: Variables,
        modality: str,
        items: Items,
        train: bool,
        keys: Keys | None,
        rows: Rows | None,
    ) -> tuple[Codes, Tree]:
        own = keys.named(modality) if keys is not None else None
        found, stats = self.gaussian(variables, modality, items, own if train else None, rows)
        codes = {"mu": found.means[:, 0]}
        if found.log_sigma is not None:
            codes["log_sigma"] = found.log_sigma
        if not train and self.test_distance not in similarities.OF_SAMPLES:
            return codes, stats
        codes["samples"] = found.means
        if found.log_sigma is not None:
            if own is None:
                raise ValueError("PCME draws samples, so encode needs keys")
            count = self.samples_train if train else self.samples_eval
            codes["samples"] = draw(codes["mu"], found.log_sigma, count, own.named("samples"))
        return codes, stats

    def uncertainty(self, codes: Codes) -> Float[Array, " n"] | None:
        """The geometric mean of σ over dimensions; None for a side that is a point."""
        if "log_sigma" not in codes:
            return None
        return jnp.exp(jnp.mean(jnp.asarray(codes["log_sigma"]), axis=1))

    # --- a pair -------------------------------------------------------------------------------

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """By ``test_distance``, of pictures and captions; the first of a kl is the picture.

        ``matching_prob`` gives log p, which orders pairs as p does where p itself is 0 in float32,
        divided by the constant κ a_0 √D, which keeps it near 1.
        """
        if a[0] == "text":
            return self.score(variables, b, a).T
        if self.test_distance != "matching_prob":
            return similarities.similarity(self.test_distance, a[1], b[1])
        found = self.log_probability(variables, a[1], b[1])
        return found / (self.logit_scale * self.init_scale * self.dim**0.5)

    def log_probability(
        self, variables: Variables, images: Codes, texts: Codes
    ) -> Float[Array, "A B"]:
        """Logarithm of the match probability of every pair."""
        return soft.log_match_in_blocks(self._match(variables), images["samples"], texts["samples"])

    def _match(self, variables: Variables) -> soft.Match:
        own = variables.params["match"]
        return soft.Match(own["scale"], own["shift"], self.logit_scale)

    @property
    def coarse_exact(self) -> bool:
        """Whether the test distance is an inner product."""
        return self.test_distance in similarities.EXACT

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n E"]:
        """Vectors whose product is the score, or minus the expected distance of samples."""
        return similarities.vectors(self.test_distance, codes, first=modality == "image")

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
        """2 · soft contrastive + β · VIB + λ · uniformity (spec 1.3), or the triplet loss."""
        if self.objective == "triplet":
            total = self._triplet(codes, row, step, axis)
            return total, {"triplet": total}, variables.stats, None
        valid, index, group = axis.gather((row["valid"], row["index"], row["group"]))
        images, texts = (codes[m]["samples"] for m in self.modalities)
        own, others = (row["index"], index) if self.match == "identity" else (row["group"], group)
        match = self._match(variables)
        positive, negative = soft.soft_contrastive(
            match,
            images,
            axis.gather(texts),
            own[:, None] == others[None, :],
            row["valid"][:, None] & valid[None, :],
        )
        terms = {"positive": axis.sum(positive), "negative": axis.sum(negative)}
        count = jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
        share = 128.0 / count if self.loss_norm == "per_128" else jnp.float32(1.0)
        total = 2.0 * share**2 * (terms["positive"] + terms["negative"])
        terms |= {"scale": match.scale, "shift": match.shift}
        terms |= self._of_sigmas(codes, row["valid"], count, axis)
        if "vib" in terms:
            total = total + self.vib_beta * share * terms["vib"]
        if self.uniform_lambda:
            together = axis.gather(jnp.concatenate([images, texts], axis=1))
            terms["uniform"] = self._uniformity(together, valid, index, keys)
            total = total + self.uniform_lambda * terms["uniform"]
        return total, terms, variables.stats, None

    def _of_sigmas(
        self, codes: Mapping[str, Codes], valid: Array, count: Array, axis: Axis
    ) -> Terms:
        """The mean log σ of every probabilistic side, and the VIB of all."""
        sides = {m: side for m, side in codes.items() if "log_sigma" in side}
        terms: Terms = {}
        for modality, side in sides.items():
            logs = jnp.where(valid, jnp.mean(side["log_sigma"], axis=1), 0.0)
            terms[f"log_sigma/{modality}"] = axis.sum(jnp.sum(logs)) / count
        if self.vib_beta and sides:
            each = [self._vib(side, valid) for side in sides.values()]
            terms["vib"] = axis.sum(sum(each[1:], start=each[0]))
        return terms

    def _vib(self, side: Codes, valid: Array) -> Array:
        return soft.vib(side["samples"], side["mu"], side["log_sigma"], valid, self.kl_form)

    def _uniformity(self, samples: Array, valid: Array, index: Array, keys: Keys) -> Array:
        """Of all devices' samples [B, K, D]; ``index`` are their rows' places in the batch."""
        base, limit = keys.named("uniform").base, self.uniform_rows
        if self.uniform_replace:
            draws = uniform_numbers(Keys(base, jnp.arange(limit)), 1).reshape(-1)
            return soft.uniformity(samples, valid, draws, limit, replace=True)
        order = uniform_numbers(Keys(base, index), samples.shape[1])
        return soft.uniformity(samples, valid, order, limit)

    def _triplet(
        self, codes: Mapping[str, Codes], row: Items, step: Int[Array, ""], axis: Axis
    ) -> Float[Array, ""]:
        valid, group = axis.gather((row["valid"], row["group"]))
        images, texts = (codes[m]["samples"] for m in self.modalities)
        return triplet(
            axis.pair_rows(similarities.best_proposals, images, texts),
            negatives(valid, group if self.mask_same_image else None),
            margin=self.margin,
            hard=step >= self.sum_warmup_steps,
        )
