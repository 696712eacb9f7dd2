"""Base classes of two-tower systems: one code per item, and a score of two codes.

`VectorScored` initialises and applies the two towers. `RankedVectors` adds the ranking objective
over the batch (`hmgr_jax.models.ranking`). A system of regions and words that returns unit vectors
only needs ``tower``:

    @dataclass(frozen=True)
    class MeanOfRegions(RankedVectors):
        def tower(self, modality):
            return Regions(self) if modality == "image" else Words(self)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from hmgr_jax.layers.batch_norm import STATS, ValidRows
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.losses.contrastive import infonce_of_vectors
from hmgr_jax.losses.triplet import triplet, triplet_of_vectors
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
    example_item,
    regions_and_tokens,
)
from hmgr_jax.models.options import option
from hmgr_jax.models.ranking import Ranked
from hmgr_jax.shapes import Array, Float, Int, Tree


@dataclass(frozen=True)
class VectorScored(Model):
    """A system of two towers; a subclass implements ``tower``, ``inputs``, ``sizes``, ``loss``."""

    dim: int = option(1024, at_least=1)
    dtype: str = "float32"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Pictures and texts."""
        return ("image", "text")

    @property
    def coarse_exact(self) -> bool:
        """The score is the inner product of the codes."""
        return True

    # --- for subclasses -----------------------------------------------------------------------

    def tower(self, modality: str) -> Any:
        """The Flax module of a modality, called with ``(items, keys, *tower_arguments)``."""
        raise NotImplementedError

    def tower_arguments(
        self, modality: str, tables: Tree, rows: ValidRows | None
    ) -> tuple[Any, ...]:
        """Further arguments of a tower; none by default.

        Args:
            modality: the modality of the tower.
            tables: the constants of `Variables`.
            rows: the rows of the training batch, for batch norm; None at inference.
        """
        return ()

    def to_codes(
        self, variables: Variables, modality: str, output: Any, *, train: bool, keys: Keys | None
    ) -> Codes:
        """The codes from a tower's output; by default the output."""
        return output

    def sizes(self, features: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Mapping[str, Any]:
        """{field: value from the shapes of the data}, for fields that are 0."""
        return {}

    # --- towers -------------------------------------------------------------------------------

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh towers, and the running statistics of towers with batch norm."""
        params, stats = self.init_towers(jax.random.split(key, 2), tables)
        return Variables(params, stats, None, tables)

    def init_towers(
        self, keys: Sequence[Array] | Array, tables: Tree = None
    ) -> tuple[dict[str, Any], Tree]:
        """Parameters and statistics (None without any) of the towers, a random key for each."""
        params: dict[str, Any] = {}
        stats: dict[str, Any] = {}
        for modality, key in zip(self.modalities, keys, strict=True):
            items = example_item(self.inputs()[modality])
            more = self.tower_arguments(modality, tables, None)
            made = self.tower(modality).init(key, items, None, *more)
            params[modality] = made["params"]
            if STATS in made:
                stats[modality] = made[STATS]
        return params, stats or None

    def apply_tower(
        self,
        variables: Variables,
        modality: str,
        items: Items,
        keys: Keys | None = None,
        rows: ValidRows | None = None,
    ) -> tuple[Any, Tree]:
        """The output of a tower and the statistics after it; without ``keys`` nothing is random."""
        given = {"params": variables.params[modality]}
        more = self.tower_arguments(modality, variables.tables, rows)
        tower = self.tower(modality)
        if not variables.stats or modality not in variables.stats:
            return tower.apply(given, items, keys, *more), variables.stats
        given[STATS] = variables.stats[modality]
        output, changed = tower.apply(given, items, keys, *more, mutable=[STATS])
        return output, {**variables.stats, modality: changed[STATS]}

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """The codes of items, independent of the other items of a batch."""
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
        """Training codes of this device's rows; batch norm uses the valid rows of all devices."""
        codes, rows = {}, ValidRows(row["valid"], axis)
        for modality in self.modalities:
            codes[modality], stats = self._encode(
                variables, modality, items[modality], True, keys, rows
            )
            variables = replace(variables, stats=stats)
        return codes, variables.stats

    def _encode(
        self,
        variables: Variables,
        modality: str,
        items: Items,
        train: bool,
        keys: Keys | None,
        rows: ValidRows | None,
    ) -> tuple[Codes, Tree]:
        own = keys.named(modality) if keys is not None else None
        output, stats = self.apply_tower(variables, modality, items, own if train else None, rows)
        return self.to_codes(variables, modality, output, train=train, keys=own), stats

    # --- plumbing -----------------------------------------------------------------------------

    def fit_to(self, plan: Plan) -> Any:
        """Vocabulary and feature sizes from the data, where a field is 0."""
        found = {"vocabulary_size": plan.vocabulary_size, **self.sizes(plan.features)}
        return replace(self, **{n: x for n, x in found.items() if getattr(self, n, None) == 0})

    def parts(self) -> Parts:
        """Both towers."""
        return {modality: (modality,) for modality in self.modalities}


@dataclass(frozen=True)
class RankedVectors(Ranked, VectorScored):
    """Two towers over regions and words under the ranking objective; sizes of 0 are the data's."""

    vocabulary_size: int = 0
    regions: int = 0
    region_dim: int = 0

    def sizes(self, features: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Mapping[str, Any]:
        """The number of regions and of their features."""
        regions, size = features["image"]["regions"]
        return {"regions": regions, "region_dim": size}

    def fit_to(self, plan: Plan) -> Any:
        """Sizes from the data, and the length of the warm-up from the schedule."""
        return replace(super().fit_to(plan), sum_warmup_steps=self.warmup_of(plan))

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Regions and tokens."""
        return regions_and_tokens(self.regions, self.region_dim)

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
        """The ranking objective of the codes."""
        total = self.rank_vectors(variables.params, codes, row, step, axis)
        return total, {self.objective: total}, variables.stats, None

    def init_towers(
        self, keys: Sequence[Array] | Array, tables: Tree = None
    ) -> tuple[dict[str, Any], Tree]:
        """Parameters and statistics of the towers, and the parameters of the objective."""
        params, stats = super().init_towers(keys, tables)
        return {**params, **self.loss_params()}, stats

    def parts(self) -> Parts:
        """Both towers, and the temperature."""
        return {**super().parts(), **self.loss_parts()}

    def rank_vectors(
        self,
        params: Tree,
        vectors: Mapping[str, Float[Array, "b D"]],
        row: Items,
        step: Int[Array, ""],
        axis: Axis,
    ) -> Float[Array, ""]:
        """The ranking objective of the inner products of all devices' vectors."""
        a, b = (vectors[modality] for modality in self.modalities)
        rows = row["valid"], row["group"] if self.mask_same_image else None, axis
        if self.objective == "infonce":
            return infonce_of_vectors(a, b, *rows, temperature=self.current_temperature(params))
        hard = step >= self.sum_warmup_steps
        return triplet_of_vectors(a, b, *rows, margin=self.margin, hard=hard)

    def rank_scores(
        self, scores: Float[Array, "B B"], row: Items, step: Int[Array, ""], axis: Axis
    ) -> Float[Array, ""]:
        """The triplet objective of a score matrix of the global batch."""
        hard = step >= self.sum_warmup_steps
        return triplet(scores, self.negatives(row, axis), margin=self.margin, hard=hard)
