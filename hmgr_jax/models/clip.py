"""CLIP (Radford et al., ICML 2021) and SigLIP (Zhai et al., ICCV 2023): two Transformers.

A picture is cut into patches and read by a Vision Transformer (Dosovitskiy et al., ICLR 2021), a
caption by a Transformer over its tokens. Both end in a vector of D dimensions:

    clip    v = l2n(W_v LN(ViT([class; patches]))_class),     t = l2n(W_t LN(causal(tokens))_end)
    siglip  v = l2n(pool(LN(ViT(patches)))),                  t = l2n(W_t LN(tokens + padding)_last)

    s(v, t) = v·t

where ``pool`` is attention with a learned query, and an MLP. With B pairs, their positives on the
diagonal, and N the pairs of different pictures, the objective is one of

    infonce   1/2B Σ_i -log softmax_j(s_ij / τ)_i - log softmax_j(s_ji / τ)_i      τ learned (CLIP)
    sigmoid   1/B Σ_i softplus(-z_ii) + Σ_(ij in N) softplus(z_ij),  z = s / τ + b, τ and b learned

over the pairs of all devices. ``init.clip=FOLDER`` takes sizes, tokens, preprocessing and weights
from a folder as transformers saves it. docs/models/clip.md has the options.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers import transformer
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.masking import l2n
from hmgr_jax.layers.vit import PictureSizes, ViT
from hmgr_jax.losses.contrastive import sigmoid_of_vectors
from hmgr_jax.models.base import Axis, Feature, Items, Parts
from hmgr_jax.models.options import option
from hmgr_jax.models.ranking import OBJECTIVES
from hmgr_jax.models.text_side import ReadsTokens, check_heads, encoder_sizes, read_tokens
from hmgr_jax.models.vector_scored import RankedVectors
from hmgr_jax.shapes import Array, Float, Tree

# --- towers -----------------------------------------------------------------------------------


class PictureTower(nn.Module):
    """Pixels to a unit vector."""

    model: CLIP

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B D"]:
        """Encode; nothing is random."""
        m = self.model
        tower = ViT(m.clip_picture(), jnp.dtype(m.dtype), m.checkpoint, name="clip")
        return l2n(tower(items["pixels"]).vector)


class CaptionTower(nn.Module):
    """Tokens to a unit vector."""

    model: CLIP

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B D"]:
        """Encode; nothing is random."""
        m = self.model
        return l2n(read_tokens(m, items, projection=m.dim, checkpoint=m.checkpoint)[2])


# --- the system -------------------------------------------------------------------------------


@dataclass(frozen=True)
class CLIP(ReadsTokens, RankedVectors):
    """Hyper-parameters of CLIP (of ViT-B/32) and SigLIP; sizes of 0 come from the data."""

    dim: int = option(512, at_least=1)
    """Size of the vectors; siglip's is ``picture_width``."""
    picture_size: int = 0
    """Side length in pixels."""
    picture_patch: int = option(32, at_least=1)
    """Side length of a patch in pixels."""
    picture_width: int = option(768, at_least=1)
    picture_layers: int = option(12, at_least=1)
    picture_heads: int = option(12, at_least=1)
    picture_intermediate: int = option(3072, at_least=1)
    picture_activation: str = option("quick_gelu", choices=tuple(transformer.ACTIVATIONS))
    picture_epsilon: float = 1e-5
    checkpoint: bool = False
    """Recompute the inside of each block in the backward pass: less memory, more time."""
    objective: str = option("infonce", choices=(*OBJECTIVES, "sigmoid"))
    temperature: float = option(0.07, above=0.0)
    """τ at the start, under infonce and sigmoid; SigLIP starts from 0.1."""
    bias: float = -10.0
    """b at the start, under sigmoid."""

    def tower(self, modality: str) -> nn.Module:
        """The tower of a modality."""
        return PictureTower(self) if modality == "image" else CaptionTower(self)

    # --- loss ---------------------------------------------------------------------------------

    def rank_vectors(
        self, params: Tree, vectors: Mapping[str, Array], row: Items, step: Array, axis: Axis
    ) -> Float[Array, ""]:
        """The objective of the vectors of all devices."""
        if self.objective != "sigmoid":
            return super().rank_vectors(params, vectors, row, step, axis)
        groups = row["group"] if self.mask_same_image else None
        both, learned = (vectors["image"], vectors["text"]), params["loss"]["bias"]
        scale = self.logit_scale(params)
        return sigmoid_of_vectors(*both, row["valid"], groups, axis, scale=scale, bias=learned)

    def logit_scale(self, params: Tree) -> Float[Array, ""]:
        """1 / τ, within the bounds of infonce; the sigmoid objective has none."""
        if self.objective == "sigmoid":
            return jnp.exp(-params["loss"]["log_temperature"])
        return 1.0 / self.current_temperature(params)

    def loss_params(self) -> dict[str, Tree]:
        """The logarithm of τ, and b under sigmoid."""
        if self.objective != "sigmoid":
            return super().loss_params()
        start = {"log_temperature": math.log(self.temperature), "bias": self.bias}
        return {"loss": {name: jnp.float32(value) for name, value in start.items()}}

    def loss_parts(self) -> Parts:
        """The part of `loss_params`."""
        return {"loss": ("loss",)} if self.objective == "sigmoid" else super().loss_parts()

    # --- hyper-parameters and plumbing --------------------------------------------------------

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self, "picture")
        if self.picture_size and self.picture_patch > self.picture_size:
            raise UserError(
                f"model.picture_patch is {self.picture_patch} for pictures of {self.picture_size} "
                "pixels: lower it, or raise data.pixels.size."
            )
        if self.clip_kind == "siglip" and self.dim != self.picture_width:
            raise UserError(
                f"model.dim must be model.picture_width, {self.picture_width}, under "
                f"model.clip_kind siglip, got {self.dim}: change one of them."
            )

    def clip_picture(self) -> PictureSizes:
        """Sizes of the picture tower."""
        projection = self.dim if self.clip_kind == "clip" else None
        sizes = encoder_sizes(self, "picture")
        return PictureSizes(sizes, self.picture_size, self.picture_patch, projection)

    @property
    def reads_pieces(self) -> bool:
        """Captions may be tokens of a folder's tokenizer, or words."""
        return True

    @property
    def positions(self) -> int:
        """The longest text that the tower can read."""
        return self.clip_positions

    def sizes(self, features: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Mapping[str, int]:
        """The size of pictures."""
        return {"picture_size": features["image"]["pixels"][0]}

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Pixels and tokens."""
        side = self.picture_size
        return {
            "image": {"pixels": Feature((side, side, 3), "float32")},
            "text": super().inputs()["text"],
        }

    def parts(self) -> Parts:
        """Both towers (together ``clip``), their last maps, word vectors, temperature and bias."""
        last = "projection" if self.clip_kind == "clip" else "pool"
        return {
            "image": ("image",),
            "text": ("text",),
            "words": ("text/clip/words",),
            "clip": ("image/clip", "text/clip"),
            "projections": (f"image/clip/{last}", "text/clip/projection"),
            **self.loss_parts(),
        }
