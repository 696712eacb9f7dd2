"""DXR: the retriever of cross-modal retrieval augmentation (Gur et al., Findings of EMNLP 2021).

The cells of a picture's grid and the states that BERT has of a caption's words are projected one by
one and pooled to a unit vector; the score of a pair is the inner product. No code was released:
components and the batch-hard loss are the paper's, what it leaves open follows the specification's
section 5.1 (VSE∞'s grid models), and BUILD_NOTES.md says where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers import resnet
from hmgr_jax.layers.batch_norm import STATS, Rows
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.pooling import POOLS, GlobalPool
from hmgr_jax.layers.regions import EMBEDDINGS, SCALES, RegionEmbedding
from hmgr_jax.losses.contrastive import contrastive_hard, infonce
from hmgr_jax.losses.triplet import negatives, triplet
from hmgr_jax.models.base import (
    Axis,
    Codes,
    Feature,
    Items,
    Parts,
    Plan,
    Terms,
    Variables,
    example,
)
from hmgr_jax.models.picture_side import (
    picture_inputs,
    picture_parts,
    picture_sizes,
    read_cells,
)
from hmgr_jax.models.ranges import check_ranges
from hmgr_jax.models.text_side import ReadsWords, word_states
from hmgr_jax.shapes import Array, Float, Int, Tree

OBJECTIVES = ("triplet_hard", "contrastive_hard", "infonce")
CHOICES = {
    "cnn": tuple(resnet.KINDS),
    "region_scale": SCALES,
    "region_embedding": EMBEDDINGS,
    "pool": POOLS,
    "objective": OBJECTIVES,
}
AT_LEAST = {"dim": 1, "cnn_width": 1, "region_hidden": 0}


@dataclass(frozen=True)
class DXR(ReadsWords):
    """Hyper-parameters of DXR; sizes of 0 come from the data, a warm-up of -1 lasts an epoch."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    coarse_exact: ClassVar[bool] = True

    dim: int = 1024
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
    region_embedding: str = "linear"
    region_hidden: int = 0
    residual_gain: float = 0.0
    """Of ``region_embedding`` mlp at the start."""
    feature_dropout: float = 0.0
    region_dropout: float = 0.2
    """Share of the cells that training leaves out."""
    word_dropout: float = 0.2
    """Share of the words that training hides from BERT and from the pool."""
    pool: str = "max"
    pool_dropout: float = 0.0
    """Of ``pool`` attention."""
    # loss
    objective: str = "triplet_hard"
    margin: float = 0.2
    temperature: float = 0.05
    """Of infonce."""
    sum_warmup_steps: int = -1
    """So long all negatives count in ``triplet_hard``, and then the hardest."""
    mask_same_image: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST)
        self.check_bert()
        if self.temperature <= 0:
            raise UserError(f"model.temperature must be above 0, not {self.temperature}: raise it.")

    def fit_to(self, plan: Plan) -> DXR:
        """Sizes from the data: pixels where it has them, else regions."""
        warmup = plan.steps_per_epoch if self.sum_warmup_steps < 0 else self.sum_warmup_steps
        words = self.vocabulary_size or plan.vocabulary_size
        sizes = picture_sizes(self, plan.features["image"])
        return replace(self, vocabulary_size=words, sum_warmup_steps=warmup, **sizes)

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Pixels or regions, and tokens."""
        return picture_inputs(self)

    def parts(self) -> Parts:
        """Both sides, and within them BERT, its word vectors, and the CNN with its stages."""
        return {"image": ("image",), **self.text_parts(), **picture_parts(self)}

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; running statistics where there is a CNN."""
        params: dict[str, Any] = {}
        stats: Tree = None
        keys = dict(zip(self.modalities, jax.random.split(key, 2), strict=True))
        for modality, features in self.inputs().items():
            made = self._tower(modality).init(keys[modality], example(features), None, None)
            params[modality] = made["params"]
            stats = {modality: made[STATS]} if STATS in made else stats
        return Variables(params, stats, None, tables)

    def _tower(self, modality: str) -> Any:
        return PictureTower(self) if modality == "image" else CaptionTower(self)

    # --- one item -----------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Float[Array, "B D"], Tree]:
        """Unit vectors."""
        return self._encode(variables, modality, items, keys if train else None, None)

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
            codes[modality], stats = self._encode(variables, modality, items[modality], keys, rows)
            variables = replace(variables, stats=stats)
        return codes, variables.stats

    def _encode(
        self,
        variables: Variables,
        modality: str,
        items: Items,
        keys: Keys | None,
        rows: Rows | None,
    ) -> tuple[Float[Array, "B D"], Tree]:
        """Codes and the statistics after them; without ``keys`` nothing is drawn."""
        keys = keys.named(modality) if keys is not None else None
        given, tower = {"params": variables.params[modality]}, self._tower(modality)
        if variables.stats is None or modality not in variables.stats:
            return tower.apply(given, items, keys, rows), variables.stats
        given[STATS] = variables.stats[modality]
        found, changed = tower.apply(given, items, keys, rows, mutable=[STATS])
        return found, {**variables.stats, modality: changed[STATS]}

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
        """The mean over the batch's rows of what ``objective`` says of both directions."""
        valid, group = axis.gather((row["valid"], row["group"]))
        is_negative = negatives(valid, group if self.mask_same_image else None)
        scores = axis.pair_rows(
            lambda a, b: einsum("ad,bd->ab", a, b), codes["image"], codes["text"]
        )
        if self.objective == "triplet_hard":
            hard = step >= self.sum_warmup_steps
            total = triplet(scores, is_negative, margin=self.margin, hard=hard)
        elif self.objective == "contrastive_hard":
            total = contrastive_hard(scores, is_negative, valid, margin=self.margin)
        else:
            total = infonce(scores, is_negative, valid, temperature=self.temperature)
        total = total / jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
        return total, {self.objective: total}, variables.stats, None


class PictureTower(nn.Module):
    """Cells or regions, each projected, to a unit vector."""

    model: DXR

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None, rows: Rows | None) -> Float[Array, "B D"]:
        """Encode; with ``rows`` the CNN normalises by the batch."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask = read_cells(m, items, keys, rows)
        project = RegionEmbedding(
            m.dim, m.region_embedding, m.region_hidden, m.residual_gain, dtype, name="project"
        )
        return GlobalPool(m.pool, m.pool_dropout, dtype, name="pool")(project(x), mask, keys)


class CaptionTower(nn.Module):
    """BERT's states, each projected, to a unit vector."""

    model: DXR

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None, rows: Rows | None) -> Float[Array, "B D"]:
        """Encode; captions do not depend on ``rows``."""
        m = self.model
        x, mask = word_states(m, items, keys)
        return GlobalPool(m.pool, m.pool_dropout, jnp.dtype(m.dtype), name="pool")(x, mask, keys)
