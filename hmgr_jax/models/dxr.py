"""DXR: the retriever of cross-modal retrieval augmentation (Gur et al., Findings of EMNLP 2021).

A picture is the grid of a CNN (or regions) x [G, C], a caption the last states of BERT h [L, W]:

    v = l2n(pool_g(x_g W_v + b_v)),   t = l2n(pool_l(h_l W_t + b_t)),   s(v, t) = v·t

Each fragment is projected before the pool, so that the default, the maximum, picks the strongest
fragment of every dimension. The loss is batch-hard: the ranking loss on the hardest negative,
divided by the number of rows. No code was released: docs/models/dxr.md lists our design choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers import resnet
from hmgr_jax.layers.batch_norm import ValidRows
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.pooling import POOLS, GlobalPool
from hmgr_jax.layers.regions import EMBEDDINGS, SCALES, RegionEmbedding
from hmgr_jax.losses.contrastive import contrastive_hard
from hmgr_jax.models.base import Axis, Codes, Feature, Items, Parts, Terms, Variables
from hmgr_jax.models.options import option
from hmgr_jax.models.picture_side import (
    picture_inputs,
    picture_parts,
    picture_sizes,
    read_cells,
)
from hmgr_jax.models.ranking import OBJECTIVES
from hmgr_jax.models.text_side import ReadsWords, word_states
from hmgr_jax.models.vector_scored import RankedVectors
from hmgr_jax.shapes import Array, Float, Int, Tree

# --- towers -----------------------------------------------------------------------------------


class PictureTower(nn.Module):
    """Grid cells or regions to a unit vector."""

    model: DXR

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None, rows: ValidRows | None
    ) -> Float[Array, "B D"]:
        """Encode; with ``rows`` the CNN normalises by the batch."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask = read_cells(m, items, keys, rows)
        project = RegionEmbedding(
            m.dim, m.region_embedding, m.region_hidden, m.residual_gain, dtype, name="project"
        )
        return GlobalPool(m.pool, m.pool_dropout, dtype, name="pool")(project(x), mask, keys)


class CaptionTower(nn.Module):
    """States of BERT, or of CLIP's text tower, to a unit vector."""

    model: DXR

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None, rows: ValidRows | None
    ) -> Float[Array, "B D"]:
        """Encode; captions do not depend on ``rows``."""
        m = self.model
        x, mask = word_states(m, items, keys)
        return GlobalPool(m.pool, m.pool_dropout, jnp.dtype(m.dtype), name="pool")(x, mask, keys)


# --- the system -------------------------------------------------------------------------------


@dataclass(frozen=True)
class DXR(ReadsWords, RankedVectors):
    """Hyper-parameters of DXR; sizes of 0 come from the data, a warm-up of -1 lasts an epoch."""

    text: str = option("bert", choices=("bert", "clip"))
    picture_size: int = 0
    """Side length in pixels; 0 for data with regions instead of pixels."""
    # pictures
    cnn: str = option("resnet152", choices=resnet.KINDS)
    cnn_width: int = option(64, at_least=1)
    cnn_small_stem: bool = False
    cnn_batch_stats: bool = True
    """Batch norm uses the statistics of the batch in training, also in a frozen CNN."""
    region_scale: str = option("none", choices=SCALES)
    region_embedding: str = option("linear", choices=EMBEDDINGS)
    region_hidden: int = option(0, at_least=0)
    residual_gain: float = 0.0
    """Initial gain of the residual of ``region_embedding`` mlp."""
    feature_dropout: float = 0.0
    region_dropout: float = 0.2
    """Share of grid cells or regions dropped in training."""
    word_dropout: float = 0.2
    """Share of words masked out in training, in BERT and in the pool."""
    pool: str = option("max", choices=POOLS)
    pool_dropout: float = 0.0
    """Dropout of ``pool`` attention."""
    # loss
    objective: str = option("triplet", choices=(*OBJECTIVES, "contrastive_hard"))

    def tower(self, modality: str) -> nn.Module:
        """The tower of a modality."""
        return PictureTower(self) if modality == "image" else CaptionTower(self)

    def tower_arguments(
        self, modality: str, tables: Tree, rows: ValidRows | None
    ) -> tuple[Any, ...]:
        """The rows of the batch, for batch norm in the CNN."""
        return (rows,)

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
        """The objective in both directions, a mean over the valid rows of the batch."""
        if self.objective == "infonce":
            return super().loss(variables, codes, row, step=step, keys=keys, axis=axis)
        valid = axis.gather(row["valid"])
        scores = axis.pair_rows(
            lambda a, b: einsum("ad,bd->ab", a, b), codes["image"], codes["text"]
        )
        if self.objective == "triplet":
            total = self.rank_scores(scores, row, step, axis)
        else:
            is_negative = self.negatives(row, axis)
            total = contrastive_hard(scores, is_negative, valid, margin=self.margin)
        total = total / jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
        return total, {self.objective: total}, variables.stats, None

    @property
    def summed(self) -> frozenset[str]:
        """The objective is a mean, so no term is a sum."""
        return frozenset()

    # --- hyper-parameters and plumbing --------------------------------------------------------

    def sizes(self, features: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Mapping[str, Any]:
        """The size of pictures, or the number of regions and of their features."""
        return picture_sizes(self, features["image"])

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Pixels or regions, and tokens."""
        return picture_inputs(self)

    def parts(self) -> Parts:
        """Both towers, BERT or CLIP, its word vectors, and the CNN with its stages."""
        towers = {"image": ("image",), **self.text_parts(), **picture_parts(self)}
        return {**towers, **self.loss_parts()}
