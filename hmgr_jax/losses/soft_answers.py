"""Soft targets of VQA from the answers of several annotators, and the loss against them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.shapes import Array, Bool, Float, Num

ENOUGH = 3
"""So many annotators make an answer wholly right."""


def soft_targets(counts: Num[Array, "B A"], annotators: int = 10) -> Float[Array, "B A"]:
    """How right each answer is: the mean of min(matches / 3, 1) over all but one annotator.

    Of ten annotators, for 0, 1, 2, 3 and more of them: 0, 0.3, 0.6, 0.9 and 1, the numbers that
    MCAN has in a table.
    """
    n = counts.astype(jnp.float32)
    without_one = jnp.minimum((n - 1.0) / ENOUGH, 1.0) * n
    others = jnp.minimum(n / ENOUGH, 1.0) * (annotators - n)
    return (without_one + others) / annotators


def answer_loss(
    logits: Float[Array, "b A"],
    targets: Float[Array, "b A"],
    valid: Bool[Array, " b"],
    axis: Any,
) -> Float[Array, ""]:
    """Binary cross entropy, the mean over the valid rows of all devices of the sum over answers.

    Pythia and its descendants (MMF) write it as the mean times the number of answers.
    """
    each = jax.nn.softplus(logits) - logits * targets
    rows = jnp.where(valid, jnp.sum(each, axis=1), 0.0)
    count = axis.sum(jnp.sum(valid.astype(jnp.float32)))
    return axis.sum(jnp.sum(rows)) / jnp.maximum(count, 1.0)
