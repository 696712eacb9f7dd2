"""Norms, softmax, means and maxima in float32 that do not depend on padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hmgr_jax.shapes import Array, Bool, Float, Int


def l2n(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Unit vectors on the last axis: ``x / (|x| + 1e-8)``, as in SCAN's code.

    The 1e-12 under the root keeps the gradient of an all-zero (padding) row finite.
    """
    x = x.astype(jnp.float32)
    return x / (jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12) + 1e-8)


def length_mask(lengths: Int[Array, " B"], size: int) -> Bool[Array, "B size"]:
    """True at the first ``lengths[i]`` positions of row i."""
    return jnp.arange(size)[None, :] < lengths[:, None]


def masked_softmax(
    logits: Float[Array, "*batch N"], mask: Bool[Array, "*batch N"]
) -> Float[Array, "*batch N"]:
    """Softmax over the last axis among the entries of ``mask``; exactly 0 elsewhere."""
    weights = jax.nn.softmax(jnp.where(mask, logits.astype(jnp.float32), -1e9), axis=-1)
    return jnp.where(mask, weights, 0.0)


def masked_mean(x: Float[Array, "B N D"], mask: Bool[Array, "B N"]) -> Float[Array, "B D"]:
    """Mean over the valid nodes; 0 in rows without valid nodes."""
    total = jnp.sum(jnp.where(mask[:, :, None], x, 0.0), axis=1)
    count = jnp.sum(mask, axis=1).astype(jnp.float32)
    return total / jnp.maximum(count, 1.0)[:, None]


def largest(x: Float[Array, "B N D"]) -> Float[Array, "B D"]:
    """The maximum over nodes; its gradient goes to the first node that has it.

    The gradient of ``jnp.max`` compares all values with the maximum. It is lost if the compiler
    recomputes one of the two with different rounding.
    """
    at = jnp.argmax(jax.lax.stop_gradient(x), axis=1)
    return jnp.take_along_axis(x, at[:, None, :], axis=1)[:, 0]


def masked_max(x: Float[Array, "B N D"], mask: Bool[Array, "B N"]) -> Float[Array, "B D"]:
    """Maximum over the valid nodes; 0 in rows without valid nodes."""
    top = largest(jnp.where(mask[:, :, None], x, -jnp.inf))
    return jnp.where(jnp.any(mask, axis=1)[:, None], top, 0.0)


def move_valid_first(
    x: Float[Array, "B N D"], mask: Bool[Array, "B N"]
) -> tuple[Float[Array, "B N D"], Bool[Array, "B N"]]:
    """Nodes and mask with the valid nodes first, in the original order; other nodes are 0."""
    order = jnp.argsort(jnp.where(mask, 0.0, jnp.inf), axis=1, stable=True)
    x = jnp.where(mask[:, :, None], x, 0.0)
    return (
        jnp.take_along_axis(x, order[:, :, None], axis=1),
        jnp.take_along_axis(mask, order, axis=1),
    )
