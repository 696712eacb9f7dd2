"""The ranking objective of a batch: triplet hinges or InfoNCE over the scores of all its pairs.

`Ranked` holds the options that vector scorers and pair scorers share, and the temperature of
InfoNCE. With scores s of B pairs, whose positives are on the diagonal,

    triplet   Σ_i max_j [α + s_ij - s_ii]_+ + Σ_j max_i [α + s_ij - s_jj]_+
              (sums instead of the maxima in the first ``sum_warmup_steps`` steps)
    infonce   1/2B Σ_i -log softmax_j(s_ij / τ)_i - log softmax_j(s_ji / τ)_i,  τ learned

The triplet loss is that of VSE++ (Faghri et al., BMVC 2018); InfoNCE with a learned temperature is
that of CLIP (Radford et al., ICML 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.losses.triplet import constant_triplet, negatives
from hmgr_jax.models.base import Axis, Items, Model, Parts, Plan
from hmgr_jax.models.options import option
from hmgr_jax.shapes import Array, Bool, Float, Tree

OBJECTIVES = ("triplet", "infonce")
COLDEST, WARMEST = 0.01, 1.0
"""The bounds of τ."""


@dataclass(frozen=True)
class Ranked(Model):
    """Options of the ranking objective; a warm-up of -1 lasts an epoch."""

    objective: str = option("triplet", choices=OBJECTIVES)
    margin: float = option(0.2, at_least=0.0)
    """α, the required difference of a positive and a negative score, under triplet."""
    sum_warmup_steps: int = option(-1, at_least=-1)
    """Steps on the sum over all negatives; `mined.TO_THE_END` trains on it throughout."""
    temperature: float = option(0.1, above=0.0)
    """τ at the start, under infonce; within `COLDEST` and `WARMEST`."""
    mask_same_image: bool = True
    """Other captions of the same picture are not negatives."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not COLDEST <= self.temperature <= WARMEST:
            raise UserError(
                f"model.temperature must be in [{COLDEST}, {WARMEST}], got {self.temperature}: "
                "change it."
            )

    def loss_params(self) -> dict[str, Tree]:
        """The logarithm of τ, under infonce."""
        if self.objective != "infonce":
            return {}
        return {"loss": {"log_temperature": jnp.float32(math.log(self.temperature))}}

    def loss_parts(self) -> Parts:
        """The part of `loss_params`."""
        return {"loss": ("loss",)} if self.objective == "infonce" else {}

    def current_temperature(self, params: Tree) -> Float[Array, ""]:
        """τ, within its bounds.

        Beyond them the gradient is that of the parameter itself, so that it can return.
        """
        log: Array = params["loss"]["log_temperature"]
        return jnp.exp(log + jax.lax.stop_gradient(jnp.clip(log, *_LOG_BOUNDS) - log))

    def warmup_of(self, plan: Plan) -> int:
        """``sum_warmup_steps``, or the steps of an epoch."""
        return plan.steps_per_epoch if self.sum_warmup_steps < 0 else self.sum_warmup_steps

    @property
    def summed(self) -> frozenset[str]:
        """The terms of hinges, which are summed over the batch."""
        sums = ("loss", "triplet", "before_memory") if self.objective == "triplet" else ()
        return frozenset(sums)

    def plateau(self, row: Items, step: Array, axis: Axis) -> Float[Array, ""] | None:
        """2 · margin · B, or of the sum over all negatives 2 · margin · their number."""
        if self.objective != "triplet":
            return None
        group = row["group"] if self.mask_same_image else None
        hard = step >= self.sum_warmup_steps
        return constant_triplet(row["valid"], group, axis, margin=self.margin, hard=hard)

    def negatives(self, row: Items, axis: Axis) -> Bool[Array, "B B"]:
        """The pairs of the global batch that count as negatives."""
        valid, group = axis.gather((row["valid"], row["group"]))
        return negatives(valid, group if self.mask_same_image else None)


_LOG_BOUNDS = (math.log(COLDEST), math.log(WARMEST))
