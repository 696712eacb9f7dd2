"""PCME: probabilistic cross-modal embedding (Chun et al., CVPR 2021), with PVSE as a special case.

A picture and a caption are Gaussians N(μ, σ²) in D dimensions. From a picture's cells z [G, C] with
their mean g, and a caption's word vectors w [L, 300] with two GRU sentence vectors s, s_σ:

    picture  μ = l2n(LN(g W_g + b_g + sigmoid(att(z) W_r + b_r))),  log σ = att_σ(z) W_a + g W_b + b
    caption  μ = l2n(LN(s + sigmoid(att(w) W_r + b_r))),            log σ = att_σ(w) W_a + s_σ + b

J samples v_j = μ + σ ε_j of both sides give the probability that a pair matches. The loss is the
negative log-likelihood over all pairs of the batch, with the VIB and uniformity terms:

    p = 1/J² Σ_jj' sigmoid(κ (b - a |v_j - t_j'|)),   L = 2 L_match + β L_vib + λ L_uniform

A picture is given as pixels (read by a ResNet with batch norm over all devices), as a feature map
or as regions. ``objective="triplet"`` on points with K ``proposals`` is PVSE (Song and Soleymani,
CVPR 2019). docs/models/pcme.md has the options and the deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers import gaussian_distances as gaussians
from hmgr_jax.layers import resnet
from hmgr_jax.layers.batch_norm import ValidRows
from hmgr_jax.layers.dropout import Keys, dropout, uniform_numbers
from hmgr_jax.layers.masking import length_mask, masked_mean
from hmgr_jax.layers.probabilistic import SIGMA_HEADS, MeanHead, SigmaHead, draw, plain_linear
from hmgr_jax.layers.recurrent import SENTENCE_POOLS, SentenceGRU
from hmgr_jax.layers.regions import SCALES
from hmgr_jax.layers.words import WordVectors, forget_words, remove_words
from hmgr_jax.losses import soft_contrastive as soft
from hmgr_jax.models.base import Axis, Codes, Feature, Items, Parts, Terms, Variables
from hmgr_jax.models.options import option
from hmgr_jax.models.picture_side import (
    picture_inputs,
    picture_parts,
    picture_sizes,
    read_cells,
)
from hmgr_jax.models.vector_scored import RankedVectors
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

# --- towers -----------------------------------------------------------------------------------


class Gaussian(NamedTuple):
    """The output of a tower."""

    means: Float[Array, "B K D"]
    """K proposals of unit length."""
    log_sigma: Float[Array, "B D"] | None
    """None if the side is a point embedding."""
    attention: Float[Array, "B N K"] | None
    """Weights of the fragments in the mean."""


class PictureTower(nn.Module):
    """Pixels through a ResNet, or regions, to a Gaussian."""

    model: PCME

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None, rows: ValidRows | None) -> Gaussian:
        """Encode; with ``rows`` the ResNet normalises by the batch."""
        m = self.model
        dtype = jnp.dtype(m.dtype)
        x, mask = read_cells(m, items, keys, rows)
        mean, size = masked_mean(x, mask), x.shape[-1]
        whole = plain_linear(m.dim, size, dtype, "fc")(mean)
        sigma = plain_linear(m.dim, size, dtype, "fc_sigma")(mean) if m.img_probemb else None
        return _gaussian(m, (x, mask), (whole, sigma), m.img_attention)


class CaptionTower(nn.Module):
    """Word vectors, with one GRU for the mean and one for sigma, to a Gaussian."""

    model: PCME

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None, rows: ValidRows | None) -> Gaussian:
        """Encode; captions do not depend on ``rows``."""
        m = self.model
        tokens, lengths = items["tokens"], items["lengths"]
        tokens = forget_words(tokens, length_mask(lengths, tokens.shape[1]), m.word_dropout, keys)
        tokens, lengths = remove_words(tokens, lengths, m.word_removal, keys)
        mask = length_mask(lengths, tokens.shape[1])
        x = WordVectors(m.vocabulary_size, m.word_dim, name="words")(tokens)
        x = dropout(x, m.vector_dropout, keys, "word_vectors")

        def sentence(name: str) -> Array:
            gru = SentenceGRU(m.dim, m.bigru_pool, jnp.dtype(m.dtype), name=name)
            return gru(x, lengths)

        wholes = sentence("gru"), sentence("gru_sigma") if m.txt_probemb else None
        return _gaussian(m, (x, mask), wholes, m.txt_attention)


def _gaussian(
    model: PCME,
    fragments: tuple[Float[Array, "B N C"], Bool[Array, "B N"]],
    wholes: tuple[Float[Array, "B D"], Float[Array, "B D"] | None],
    attention: bool,
) -> Gaussian:
    """Apply the mean and sigma heads to the fragments and the two global vectors of an item."""
    common: dict[str, Any] = {"attention": attention, "dtype": jnp.dtype(model.dtype)}
    mean = MeanHead(model.dim, proposals=model.proposals, **common, name="mean")
    means, weights = mean(*fragments, wholes[0])
    if wholes[1] is None:
        return Gaussian(means, None, weights)
    sigma = SigmaHead(model.dim, kind=model.sigma_head, **common, name="sigma")
    return Gaussian(means, sigma(*fragments, wholes[1]) + model.log_sigma_start, weights)


# --- the system -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PCME(RankedVectors):
    """Hyper-parameters of PCME (of COCO); sizes of 0 come from the data."""

    word_dim: int = option(300, at_least=1)
    picture_size: int = 0
    """Side length in pixels; 0 for data with regions instead of pixels."""
    # pictures
    cnn: str = option("resnet152", choices=resnet.KINDS)
    cnn_width: int = option(64, at_least=1)
    cnn_small_stem: bool = False
    cnn_batch_stats: bool = True
    """Batch norm uses the statistics of the batch in training, also in a frozen CNN."""
    region_scale: str = option("none", choices=SCALES)
    feature_dropout: float = 0.0
    region_dropout: float = 0.0
    # captions
    bigru_pool: str = option("last_index", choices=SENTENCE_POOLS)
    word_dropout: float = 0.0
    word_removal: float = option(0.0, share=True)
    """Share of a caption's words removed in training."""
    vector_dropout: float = 0.0
    # heads
    img_attention: bool = True
    txt_attention: bool = True
    img_probemb: bool = True
    txt_probemb: bool = True
    """False: the side is a point embedding."""
    sigma_head: str = option("plain", choices=SIGMA_HEADS)
    log_sigma_start: float = 0.0
    """Added to log σ."""
    proposals: int = option(1, at_least=1)
    samples_train: int = option(7, at_least=1)
    samples_eval: int = option(7, at_least=1)
    # loss
    objective: str = option("soft_contrastive", choices=("soft_contrastive", "triplet"))
    match: str = option("identity", choices=("identity", "group"))
    """Pairs of a batch that match: pairs of a row, or of a group (an image's captions)."""
    init_scale: float = option(15.0, above=0)
    """a at the start; a score is divided by it and by ``logit_scale``."""
    init_shift: float = 15.0
    """b at the start."""
    logit_scale: float = option(2.0, above=0)
    """κ."""
    vib_beta: float = option(1e-5, at_least=0)
    kl_form: str = option("code", choices=soft.KL_FORMS)
    uniform_lambda: float = option(0.0, at_least=0)
    uniform_rows: int = option(128, at_least=2)
    """Number of samples compared by the uniformity term."""
    uniform_replace: bool = False
    """Draw these samples with replacement, as the released code does."""
    sum_warmup_steps: int = 0
    """As ``margin`` and ``mask_same_image``, only for ``objective`` triplet."""
    # test
    test_distance: str = option("matching_prob", choices=gaussians.NAMES)

    def tower(self, modality: str) -> nn.Module:
        """The tower of a modality."""
        return PictureTower(self) if modality == "image" else CaptionTower(self)

    def tower_arguments(
        self, modality: str, tables: Tree, rows: ValidRows | None
    ) -> tuple[Any, ...]:
        """The rows of the batch, for batch norm in the CNN."""
        return (rows,)

    # --- encode -------------------------------------------------------------------------------

    def to_codes(
        self, variables: Variables, modality: str, output: Any, *, train: bool, keys: Keys | None
    ) -> Codes:
        """``mu`` [B, D], ``log_sigma`` [B, D] of a probabilistic side, ``samples`` [B, J, D].

        Training draws noise for each row. At evaluation the items of a modality share it: equal
        items have equal samples, so that data without differences is not ranked by chance.
        """
        codes = {"mu": output.means[:, 0]}
        if output.log_sigma is not None:
            codes["log_sigma"] = output.log_sigma
        if not train and self.test_distance not in gaussians.OF_SAMPLES:
            return codes
        codes["samples"] = output.means
        if output.log_sigma is not None:
            if keys is None:
                raise ValueError("PCME draws samples: encode needs keys")
            count = self.samples_train if train else self.samples_eval
            keys = keys if train else Keys(keys.base, jnp.zeros_like(keys.rows))
            codes["samples"] = draw(codes["mu"], output.log_sigma, count, keys.named("samples"))
        return codes

    def pool_weights(
        self, variables: Variables, modality: str, items: Items
    ) -> Float[Array, "B N"] | None:
        """The attention of the mean, of several proposals their mean; None without attention."""
        weights = self.apply_tower(variables, modality, items)[0].attention
        return None if weights is None else jnp.mean(weights, axis=2)

    def uncertainty(self, codes: Codes) -> Float[Array, " n"] | None:
        """The geometric mean of σ over dimensions; None for point embeddings."""
        if "log_sigma" not in codes:
            return None
        return jnp.exp(jnp.mean(jnp.asarray(codes["log_sigma"]), axis=1))

    # --- score --------------------------------------------------------------------------------

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """Score pictures and captions by ``test_distance``; kl has the picture first.

        ``matching_prob`` gives log p / (κ a_0 √D): log p orders pairs as p does, which is 0 in
        float32 early in training, and the constant keeps the score near 1.
        """
        if a[0] == "text":
            return self.score(variables, b, a).T
        if self.test_distance != "matching_prob":
            return gaussians.similarity(self.test_distance, a[1], b[1])
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
        return self.test_distance in gaussians.EXACT

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n E"]:
        """Vectors whose product is the score, or minus the expected distance of samples."""
        return gaussians.vectors(self.test_distance, codes, first=modality == "image")

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
        """2 L_match + β L_vib + λ L_uniform, or the ranking loss of the best proposals."""
        images, texts = (codes[m]["samples"] for m in self.modalities)
        if self.objective == "triplet":
            scores = axis.pair_rows(gaussians.best_proposals, images, texts)
            total = self.rank_scores(scores, row, step, axis)
            return total, {"triplet": total}, variables.stats, None
        valid, index, group = axis.gather((row["valid"], row["index"], row["group"]))
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
        total = 2.0 * (terms["positive"] + terms["negative"])
        terms |= {"scale": match.scale, "shift": match.shift}
        terms |= self._sigma_terms(codes, row["valid"], count, axis)
        if "vib" in terms:
            total = total + self.vib_beta * terms["vib"]
        if self.uniform_lambda:
            together = axis.gather(jnp.concatenate([images, texts], axis=1))
            terms["uniform"] = self._uniformity(together, valid, index, keys)
            total = total + self.uniform_lambda * terms["uniform"]
        return total, terms, variables.stats, None

    @property
    def summed(self) -> frozenset[str]:
        """Likelihoods are of all pairs of the batch, and a row has a pair with each item."""
        likelihoods = frozenset(("loss", "positive", "negative", "vib"))
        return super().summed if self.objective == "triplet" else likelihoods

    def _sigma_terms(
        self, codes: Mapping[str, Codes], valid: Array, count: Array, axis: Axis
    ) -> Terms:
        """The mean log σ of every probabilistic side, and the sum of their VIB losses."""
        sides = {m: side for m, side in codes.items() if "log_sigma" in side}
        terms: Terms = {}
        for modality, side in sides.items():
            logs = jnp.where(valid, jnp.mean(side["log_sigma"], axis=1), 0.0)
            terms[f"log_sigma/{modality}"] = axis.sum(jnp.sum(logs)) / count
        if self.vib_beta and sides:
            each = [
                soft.vib(s["samples"], s["mu"], s["log_sigma"], valid, self.kl_form)
                for s in sides.values()
            ]
            terms["vib"] = axis.sum(sum(each[1:], start=each[0]))
        return terms

    def _uniformity(self, samples: Array, valid: Array, index: Array, keys: Keys) -> Array:
        """The uniformity loss of all devices' samples [B, K, D]; ``index`` [B] keys the draw."""
        base, limit = keys.named("uniform").base, self.uniform_rows
        if self.uniform_replace:
            draws = uniform_numbers(Keys(base, jnp.arange(limit)), 1).reshape(-1)
            return soft.uniformity(samples, valid, draws, limit, replace=True)
        order = uniform_numbers(Keys(base, index), samples.shape[1])
        return soft.uniformity(samples, valid, order, limit)

    # --- hyper-parameters and plumbing --------------------------------------------------------

    def __post_init__(self) -> None:
        super().__post_init__()
        points, distance = not (self.img_probemb or self.txt_probemb), self.test_distance
        if self.dim % 2:
            raise UserError(f"model.dim must be even (two GRU directions), got {self.dim}.")
        if distance in gaussians.OF_SIGMAS and not (self.img_probemb and self.txt_probemb):
            raise UserError(
                f"model.test_distance {distance} needs a sigma on both sides: set it to mean, or "
                "set model.img_probemb and model.txt_probemb to true."
            )
        if self.objective == "triplet" and not (points and distance in ("mean", "proposals")):
            raise UserError(
                "model.objective triplet needs points: set model.img_probemb and "
                "model.txt_probemb to false and model.test_distance to proposals."
            )
        if self.proposals > 1 and (self.objective != "triplet" or distance != "proposals"):
            raise UserError(
                f"model.proposals is {self.proposals}: above 1 it needs model.objective triplet "
                "and model.test_distance proposals. Set these, or set it to 1."
            )

    def sizes(self, features: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Mapping[str, Any]:
        """The size of pictures, or the number of regions and of their features."""
        return picture_sizes(self, features["image"])

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Pixels or regions, and tokens."""
        return picture_inputs(self)

    def parts(self) -> Parts:
        """Both towers, word vectors, scale and shift; the CNN and its stages."""
        return {
            "image": ("image",),
            "text": ("text",),
            "words": ("text/words/vectors",),
            "match": ("match",),  # empty under the triplet loss, so that recipes fit both
            **picture_parts(self),
        }

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh towers, and the scale and shift of the match probability."""
        variables = super().init(key, tables)
        if self.objective == "triplet":
            return variables
        start = {"scale": self.init_scale, "shift": self.init_shift}
        match = {name: jnp.float32(value) for name, value in start.items()}
        return replace(variables, params={**variables.params, "match": match})
