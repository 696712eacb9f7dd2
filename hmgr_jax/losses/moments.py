"""The loss of means and variances of GIN and SCKR (after Kumar et al., CVPR 2016).

The scores of matching and of other pairs form two distributions; the loss minimises their
variances and separates their means by at least a margin.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from hmgr_jax.shapes import Array, Bool, Float

Terms = dict[str, Array]


def moments(
    scores: Float[Array, "*pairs"], counts: Bool[Array, "*pairs"], axis: Any
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Number, mean and biased variance of the scores that count, over all devices.

    The variance needs a second pass; all three are 0 if no score counts.
    """
    number = axis.sum(jnp.sum(counts)).astype(jnp.float32)
    share = 1.0 / jnp.maximum(number, 1.0)
    mean = axis.sum(jnp.sum(jnp.where(counts, scores, 0.0))) * share
    squares = jnp.where(counts, (scores - mean) ** 2, 0.0)
    return number, mean, axis.sum(jnp.sum(squares)) * share


def mean_variance(
    scores: Float[Array, "*pairs"],
    matching: Bool[Array, "*pairs"],
    counts: Bool[Array, "*pairs"],
    axis: Any,
    *,
    weight: float = 0.35,
    margin: float = 0.8,
) -> tuple[Float[Array, ""], Terms]:
    """Var+ + Var- + ``weight`` · max(0, ``margin`` - (mean+ - mean-)), and its parts.

    Args:
        scores: scores of local pairs, any shape.
        matching: pairs that match.
        counts: pairs that count.
        axis: the model's ``Axis``; the loss is the same number on all devices.
        weight: λ.
        margin: required difference of the means.

    The hinge is 0 in a batch that lacks pairs of one kind.
    """
    n_same, mean_same, var_same = moments(scores, counts & matching, axis)
    n_other, mean_other, var_other = moments(scores, counts & ~matching, axis)
    hinge = jnp.maximum(margin - (mean_same - mean_other), 0.0)
    hinge = jnp.where((n_same > 0) & (n_other > 0), hinge, 0.0)
    terms = {
        "mean/matching": mean_same,
        "mean/other": mean_other,
        "variance/matching": var_same,
        "variance/other": var_other,
    }
    return var_same + var_other + weight * hinge, terms
