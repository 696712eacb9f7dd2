"""Optimisers, learning-rate schedules, and stages that freeze parts or set their rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hmgr_jax.models.base import Parts
from hmgr_jax.shapes import Array, Float, Int, Tree

KINDS = ("adam", "adamw", "adamp", "sgd")


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the step: linear warm-up, then steps down or a cosine."""

    lr: float
    steps: int
    warmup: int = 0
    decay: str = "step"
    decay_at: float = 0.5
    """Share of the steps after which the rate falls to a tenth: once (``step``), or repeatedly
    (``steps``)."""
    first: int = 0
    """The first step."""

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The rate of ``step`` (0-based)."""
        at = (step - self.first).astype(jnp.float32)
        rate = jnp.float32(self.lr) * jnp.minimum((at + 1.0) / max(self.warmup, 1), 1.0)
        if self.decay == "step":
            return jnp.where(at >= self.decay_at * self.steps, rate * 0.1, rate)
        if self.decay == "steps":
            every = max(round(self.decay_at * self.steps), 1)
            return rate * 0.1 ** jnp.floor(at / every)
        if self.decay == "cosine":
            past = jnp.clip((at - self.warmup) / max(self.steps - self.warmup, 1), 0.0, 1.0)
            return rate * 0.5 * (1.0 + jnp.cos(jnp.pi * past))
        if self.decay == "none":
            return rate
        raise ValueError(f"train.decay must be step, steps, cosine or none, got {self.decay!r}")


@dataclass(frozen=True)
class Stage:
    """A stage of training: frozen parts, and factors on the learning rates of parts."""

    steps: int
    frozen: tuple[str, ...] = ()
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    fresh_optimizer: bool = False
    own_schedule: bool = False
    """The schedule spans this stage only, instead of the whole run."""
    lr_factor: float = 1.0
    """On the rate of all parts."""
    first: int = 0
    """The first step, computed from the stages before."""


@dataclass(frozen=True)
class Optimizer:
    """Clipping by the global norm, an optax transformation, and a learning rate of the step.

    The rate is a function of ``state.step``, not of a count inside the optimiser, so a skipped
    step does not shift the schedule. Gradients of frozen parts do not count in the norm.
    """

    schedule: Schedule
    parts: Parts
    kind: str = "adam"
    clip: float = 2.0
    weight_decay: float = 0.0
    stage: Stage = Stage(0)
    unclipped: tuple[str, ...] = ()
    """Parts whose gradients neither count in the clipping norm nor are clipped."""
    plain: tuple[str, ...] = ()
    """Parts updated by plain gradient descent: no moments, no momentum, no decay."""

    def _transform(self) -> optax.GradientTransformation:
        if self.kind == "sgd":
            momentum = optax.trace(decay=0.9)
            if not self.weight_decay:
                return momentum
            return optax.chain(optax.add_decayed_weights(self.weight_decay), momentum)  # as PyTorch
        if self.kind == "adamw":
            return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(self.weight_decay))
        if self.kind == "adamp":
            return scale_by_adamp()
        if self.kind == "adam":
            return optax.scale_by_adam()
        raise ValueError(f"train.optimizer must be one of {', '.join(KINDS)}, got {self.kind!r}")

    def init(self, params: Tree) -> Tree:
        """Fresh optimiser state."""
        return self._transform().init(params)

    def hold_frozen(self, params: Tree) -> Tree:
        """``params``, those of frozen parts as constants: their gradients are not computed."""
        factors = self.factors(params)
        return jax.tree.map(lambda p, f: p if f else jax.lax.stop_gradient(p), params, factors)

    def factors(self, params: Tree) -> Tree:
        """The factor on the learning rate of every parameter, 0 for frozen ones."""
        chosen = {**dict(self.stage.lr_factors), **dict.fromkeys(self.stage.frozen, 0.0)}
        return self._of_parts(params, chosen)

    def _of_parts(self, params: Tree, chosen: Mapping[str, float]) -> Tree:
        """The value in ``chosen`` of the smallest part that holds each parameter, else 1."""
        for part in chosen:
            if part not in self.parts:
                raise ValueError(f"There is no part {part!r}; known: {', '.join(self.parts)}")
        # The longest path wins, so that "words" within "text" can differ from it.
        paths = sorted(
            ((path, factor) for part, factor in chosen.items() for path in self.parts[part]),
            key=lambda item: len(item[0]),
        )

        def factor(key_path: tuple, _: Any) -> float:
            name = "/".join(str(entry.key) for entry in key_path)
            found = 1.0
            for path, value in paths:
                if name == path or name.startswith(path + "/"):
                    found = value
            return found

        return jax.tree_util.tree_map_with_path(factor, params)

    def update(
        self, gradient: Tree, state: Tree, params: Tree, step: Int[Array, ""]
    ) -> tuple[Tree, Tree, Float[Array, ""], Float[Array, ""]]:
        """(params, optimiser state, norm before clipping, rate) after one step."""
        factors = self.factors(params)
        gradient = jax.tree.map(lambda g, f: g if f else jnp.zeros_like(g), gradient, factors)
        rate = self.schedule(step)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes Python and array types
            norm = optax.tree.norm(gradient)
            if self.clip:
                counts = self._of_parts(params, dict.fromkeys(self.unclipped, 0.0))
                kept = jax.tree.map(lambda g, c: g if c else jnp.zeros_like(g), gradient, counts)
                of_kept = optax.tree.norm(kept) if self.unclipped else norm
                scale = jnp.minimum(1.0, self.clip / jnp.maximum(of_kept, 1e-12))
                gradient = jax.tree.map(lambda g, c: g * scale if c else g, gradient, counts)
            updates, moved = self._transform().update(gradient, state, params)
        if self.plain:
            bare = self._of_parts(params, dict.fromkeys(self.plain, 0.0))
            updates = jax.tree.map(lambda u, g, b: u if b else g, updates, gradient, bare)
        state = _held(moved, state, factors)
        params = jax.tree.map(
            lambda p, u, f: p - rate * f * u if f else p, params, updates, factors
        )
        return params, state, norm, rate


def _held(new: Tree, old: Tree, factors: Tree) -> Tree:
    """The new optimiser state, with the old moments of frozen parts: no time is spent on them."""
    shape: Any = jax.tree.structure(factors)

    def like_params(tree: Tree) -> bool:
        return bool(jax.tree.structure(tree) == shape)

    def of_one(a: Tree, b: Tree) -> Tree:
        return jax.tree.map(lambda x, y, f: x if f else y, a, b, factors) if like_params(a) else a

    return jax.tree.map(of_one, new, old, is_leaf=like_params)


_ROWS = ("vectors",)
"""Parameters whose output channels are rows (embedding tables); the last axis for all others."""


def scale_by_adamp(delta: float = 0.1, eps: float = 1e-8) -> optax.GradientTransformation:
    """AdamP (Heo et al., ICLR 2021): Adam without the radial part of a step.

    A weight followed by a normalisation layer is scale invariant; momentum lets its norm grow,
    which shrinks its effective step. If the gradient of a weight is nearly orthogonal to it, the
    component of the step along the weight is removed.

    A parameter of two or more axes has two views: per output channel, and as a whole. A view is
    projected if its largest |cos| of gradient and weight is below ``delta`` / √size of its vectors.
    A chain must clip before it, not after.
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

    size = math.prod(weight.shape[axis] for axis in axes)
    cosine = jnp.abs(along(gradient, weight)) / length(gradient) / length(weight)
    direction = weight / length(weight)
    return jnp.max(cosine) < delta / size**0.5, step - direction * along(direction, step)
