"""Hinges that keep positives above one threshold and hardest negatives below another (ReSG)."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from hmgr_jax.losses.mined import Hardest
from hmgr_jax.shapes import Array, Bool, Float, Tree

QUANTILES = (0.25, 0.5, 0.75)


def threshold_hinge(
    found: Hardest,
    valid: Bool[Array, " B"],
    *,
    above: float | Float[Array, ""] = 0.7,
    below: float | Float[Array, ""] = 0.5,
) -> Float[Array, ""]:
    """Σ [above - positive]_+ + Σ [hardest negative - below]_+ over rows and columns of a batch.

    Args:
        found: similarities of the global batch.
        valid: rows that are not padding.
        above: m_p, the similarity that positives should reach.
        below: m_n, the similarity that negatives should not exceed.
    """
    total = jnp.sum(jnp.where(valid, jnp.maximum(above - found.positive, 0.0), 0.0))
    for negative, some in zip(found.negatives, found.some, strict=True):
        total = total + jnp.sum(jnp.where(some, jnp.maximum(negative - below, 0.0), 0.0))
    return total


def quantiles(x: Float[Array, " n"], mask: Bool[Array, " n"]) -> Float[Array, " 3"]:
    """`QUANTILES` of the entries of ``mask``, with linear interpolation; 0 without entries."""
    count = jnp.sum(mask)
    ordered = jnp.sort(jnp.where(mask, x, jnp.inf))
    place = jnp.asarray(QUANTILES) * jnp.maximum(count - 1, 0).astype(jnp.float32)
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.maximum(count - 1, 0))
    share = place - low.astype(jnp.float32)
    between = ordered[low] * (1.0 - share) + ordered[high] * share
    return jnp.where(count > 0, between, 0.0)


def spread(found: Hardest, valid: Bool[Array, " B"]) -> dict[str, Array]:
    """`QUANTILES` of a batch's positives and hardest negatives, keyed by their names in the log."""
    sides = {
        "positive": (found.positive, valid),
        "hardest": (jnp.concatenate(found.negatives), jnp.concatenate(found.some)),
    }
    return {
        name: value
        for side, (values, mask) in sides.items()
        for name, value in zip(_names(side), quantiles(values, mask), strict=True)
    }


def calibrated(
    thresholds: Mapping[str, Array], spread: Mapping[str, Array], due: Bool[Array, ""]
) -> dict[str, Array]:
    """The thresholds after a step: where ``due``, those of `fitting`, once.

    Args:
        thresholds: ``above`` and ``below``, float32 scalars, and ``fitted``, whether they were set.
        spread: `spread` of the step.
        due: whether they may be set. A batch whose `fitting` thresholds are not in order leaves
            them, and the next one is tried.
    """
    above, below = fitting(spread)
    now = due & ~thresholds["fitted"] & (above > below)
    fresh = {"above": above, "below": below, "fitted": jnp.ones((), bool)}
    return {name: jnp.where(now, fresh[name], old) for name, old in thresholds.items()}


def fitting(spread: Mapping[str, Tree]) -> tuple[Tree, Tree]:
    """The 75th percentile of positives, for ``above``, and the median of hardest negatives."""
    return spread[_names("positive")[2]], spread[_names("hardest")[1]]


def calibration(report: Mapping[str, float], above: float, below: float) -> str:
    """A message about `spread`, the thresholds in use, and those of `fitting` if in order."""
    positive, hardest = ([report[n] for n in _names(side)] for side in ("positive", "hardest"))
    shown = [", ".join(f"{x:.3f}" for x in values) for values in (positive, hardest)]
    high, low = fitting(report)
    advice = f"thresholds of {high:.2f} and {low:.2f} would fit"
    if low >= high:
        advice = "they overlap, so no thresholds fit yet"
    return (
        f"the quartiles of similarity are {shown[0]} for positives and {shown[1]} for hardest "
        f"negatives: {advice} (model.positive_threshold is {above}, model.negative_threshold "
        f"{below})."
    )


def _names(side: str) -> list[str]:
    return [f"similarity/{side}_p{q * 100:.0f}" for q in QUANTILES]
