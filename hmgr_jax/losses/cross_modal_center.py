"""The losses of cross-modal center loss (Jing et al., CVPR 2021): items near the centre of a class.

Vectors of all modalities of a row share the centre of its class. A row counts where its weight is
1; sums go over all devices, so that every number is the same on each of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Float, Int, Num

INITS = ("randn", "batch_mean")
UPDATES = ("sgd", "wen_ema")


def only_class(labels: Num[Array, "b K"]) -> Int[Array, " b"]:
    """The class of rows with one label of K (0 or 1); -1: none, or several."""
    found = jnp.argmax(labels, axis=1).astype(jnp.int32)
    return jnp.where(jnp.sum(labels.astype(jnp.int32), axis=1) == 1, found, -1)


def mean_of_rows(
    each: Float[Array, " b"], weights: Float[Array, " b"], axis: Any
) -> Float[Array, ""]:
    """Mean over the rows of all devices that count; 0 where none does."""
    count = jnp.maximum(axis.sum(jnp.sum(weights)), 1.0)
    mean: Array = axis.sum(jnp.sum(weights * each)) / count
    return mean


def center_loss(
    vectors: Sequence[Float[Array, "b D"]],
    centers: Float[Array, "K D"],
    classes: Int[Array, " b"],
    weights: Float[Array, " b"],
    axis: Any,
) -> Float[Array, ""]:
    """``1/(M B) Σ_m Σ_i |f_i^m - C_{y_i}|²``, as the released code has it.

    The paper's ½ Σ_i Σ_m is M B / 2 of it.

    Args:
        vectors: of every one of M modalities.
        centers: of K classes.
        classes: of the rows, from 0 to K - 1 where they count.
        weights: 1 for rows that count, else 0.
        axis: the model's ``Axis``.
    """
    own = _of_rows(centers, classes)
    each = sum(jnp.sum((x - own) ** 2, axis=1) for x in vectors) / len(vectors)
    return mean_of_rows(jnp.asarray(each), weights, axis)


def least_center_loss(
    centers: Float[Array, "K D"],
    classes: Int[Array, " b"],
    weights: Float[Array, " b"],
    axis: Any,
) -> Float[Array, ""]:
    """What no vector after a ReLU can go below: the negative coordinates of the centres."""
    own = _of_rows(centers, classes)
    return mean_of_rows(jnp.sum(jnp.minimum(own, 0.0) ** 2, axis=1), weights, axis)


def pairwise_squares(
    vectors: Sequence[Float[Array, "b D"]], weights: Float[Array, " b"], axis: Any
) -> Float[Array, ""]:
    """``Σ_{m<n} mean_{i,d} (f^m - f^n)²``; of three modalities, three times their variance."""
    each = sum(
        (jnp.mean((a - b) ** 2, axis=1) for a, b in itertools.combinations(vectors, 2)),
        start=jnp.zeros_like(weights),
    )
    return mean_of_rows(each, weights, axis)


def cross_entropy(
    logits: Float[Array, "b K"],
    classes: Int[Array, " b"],
    weights: Float[Array, " b"],
    axis: Any,
) -> Float[Array, ""]:
    """Mean over rows of minus the logarithm of the probability of their class."""
    found = jax.nn.log_softmax(logits, axis=-1)
    own = jnp.take_along_axis(found, jnp.maximum(classes, 0)[:, None], axis=1)[:, 0]
    return mean_of_rows(-own, weights, axis)


def slowed(x: Float[Array, "K D"], share: float) -> Float[Array, "K D"]:
    """``x``, whose gradient is multiplied by ``share``."""
    still = jax.lax.stop_gradient(x)
    return still + share * (x - still)


def class_sums(
    vectors: Sequence[Float[Array, "b D"]],
    classes: Int[Array, " b"],
    weights: Float[Array, " b"],
    count: int,
    axis: Any,
) -> tuple[Float[Array, "K D"], Float[Array, " K"]]:
    """Sum of the vectors of every class over all modalities and devices, and how many; constants.

    Args:
        vectors: of every modality.
        classes: of the rows.
        weights: 1 for rows that count, else 0.
        count: K.
        axis: the model's ``Axis``.
    """
    of_class = jax.nn.one_hot(classes, count, dtype=jnp.float32) * weights[:, None]
    total = jax.lax.stop_gradient(sum(vectors[1:], start=vectors[0]))
    sums = axis.sum(einsum("bk,bd->kd", of_class, total))
    return sums, len(vectors) * axis.sum(jnp.sum(of_class, axis=0))


def moved(
    centers: Float[Array, "K D"],
    sums: Float[Array, "K D"],
    counts: Float[Array, " K"],
    rate: float,
) -> Float[Array, "K D"]:
    """``C_j - α Σ_{y=j} (C_j - f) / (1 + n_j)`` (Wen et al., ECCV 2016)."""
    n = counts[:, None]
    return centers - rate * (n * centers - sums) / (1.0 + n)


def _of_rows(centers: Array, classes: Array) -> Float[Array, "b D"]:
    """Looked up and not by a matrix of all distances, whose masked entries would each count."""
    return centers.at[jnp.maximum(classes, 0)].get(mode="clip")
