"""AdamP (Heo et al., ICLR 2021): Adam without the radial part of a step.

A weight followed by a normalisation layer is scale invariant; momentum lets its norm grow, which
shrinks its effective step. If the gradient of a weight is nearly orthogonal to it, the component of
the step along the weight is removed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from hmgr_jax.shapes import Array, Float, Tree

_ROWS = ("vectors",)
"""Parameters whose output channels are rows (embedding tables); the last axis for all others."""


def scale_by_adamp(delta: float = 0.1, eps: float = 1e-8) -> optax.GradientTransformation:
    """``optax.scale_by_adam`` and the projection; ``update`` needs the parameters.

    A parameter of two or more axes has two views: per output channel, and as a whole. If the
    largest |cos| of gradient and weight in a view is below ``delta`` / √size of its vectors, the
    component of the step along the weight is removed. A chain must clip before it, not after.
    """
    adam = optax.scale_by_adam(eps=eps)

    def update(gradient: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]:
        if params is None:
            raise ValueError("AdamP needs the parameters: pass them to update")
        updates, state = adam.update(gradient, state)

        def of_one(path: tuple[Any, ...], step: Array, weight: Array, g: Array) -> Array:
            rows = jax.tree_util.keystr(path[-1:], simple=True) in _ROWS
            return _projected(step, weight, g, 0 if rows else -1, delta, eps)

        return jax.tree_util.tree_map_with_path(of_one, updates, params, gradient), state

    return optax.GradientTransformation(adam.init, update)


def _projected(
    step: Float[Array, "..."],
    weight: Float[Array, "..."],
    gradient: Float[Array, "..."],
    channel: int,
    delta: float,
    eps: float,
) -> Float[Array, "..."]:
    if weight.ndim < 2:
        return step
    axis = channel % weight.ndim
    by_channel = tuple(i for i in range(weight.ndim) if i != axis)
    whole = tuple(range(weight.ndim))
    chosen = step
    for axes in (whole, by_channel):  # the per-channel view takes precedence
        fires, without = _view(step, weight, gradient, axes, delta, eps)
        chosen = jnp.where(fires, without, chosen)
    return chosen


def _view(
    step: Array,
    weight: Array,
    gradient: Array,
    axes: tuple[int, ...],
    delta: float,
    eps: float,
) -> tuple[Array, Array]:
    """Whether the view of vectors along ``axes`` is projected, and its projected step."""

    def along(a: Array, b: Array) -> Array:
        return jnp.sum(a * b, axis=axes, keepdims=True)

    def length(x: Array) -> Array:
        return jnp.sqrt(along(x, x)) + eps

    size = 1
    for axis in axes:
        size *= weight.shape[axis]
    cosine = jnp.abs(along(gradient, weight)) / length(gradient) / length(weight)
    direction = weight / length(weight)
    return jnp.max(cosine) < delta / size**0.5, step - direction * along(direction, step)
