"""Diversified attention feature projector: several representations of one vector (GPLDAN 3.2).

K gates look at one hidden vector feature by feature; the K projections then see one another, and
are fused to the vector that is searched. The paper (Xu et al., ICIP 2020) names these parts; their
form is the specification's.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import Linear, einsum
from hmgr_jax.shapes import Array, Float

PROJECTORS = ("attention", "linear")
INTERACTIONS = ("intra", "none", "batch_cross")
FUSIONS = ("attn", "mean", "concat")
CLASSIFIERS = ("coop", "grl", "off")


class Projector(nn.Module):
    """A vector to K views and the gates that made them; ``linear`` is one view without gates."""

    views: int
    features: int
    gate_features: int
    kind: str = "attention"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B E"]) -> tuple[Array, Array]:
        """(views [B, K, D], gates [B, K, D])."""
        if self.kind == "linear":
            view = Linear(self.features, dtype=self.dtype, name="trunk")(x)[:, None]
            return view, jnp.ones_like(view)
        hidden = jnp.tanh(Linear(self.features, dtype=self.dtype, name="trunk")(x))
        looked = jnp.tanh(Linear(self.gate_features, dtype=self.dtype, name="look")(hidden))
        logits = Linear(self.views * self.features, dtype=self.dtype, name="gates")(looked)
        gates = jax.nn.sigmoid(logits.reshape(-1, self.views, self.features))
        project = Linear(self.features, dtype=self.dtype, name="project")
        return jnp.tanh(project(gates * hidden[:, None])), gates


class Interaction(nn.Module):
    """``LN(u + softmax(u W_q (c W_k)ᵀ / √D) c W_v W_o)``: views attend to views of a context.

    Both modalities share it. Without ``attend`` only the norm is left.
    """

    attend: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, views: Float[Array, "B K D"], context: Float[Array, "B C D"]
    ) -> Float[Array, "B K D"]:
        """Views of each item after they have seen those of its context, its own as a rule."""
        size = views.shape[-1]
        if self.attend:

            def linear(name: str, x: Array) -> Array:
                return Linear(size, use_bias=False, dtype=self.dtype, name=name)(x)

            query, key, value = (
                linear("query", views),
                linear("key", context),
                linear("value", context),
            )
            logits = einsum("bkd,bcd->bkc", query, key, dtype=self.dtype) / jnp.sqrt(
                jnp.float32(size)
            )
            seen = einsum("bkc,bcd->bkd", jax.nn.softmax(logits), value, dtype=self.dtype)
            views = views + linear("out", seen)
        return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name="norm")(views)


class Fusion(nn.Module):
    """K views to one vector: by attention, by their mean, or side by side and projected."""

    kind: str = "attn"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, views: Float[Array, "B K D"]) -> Float[Array, "B D"]:
        """The fused vectors, of any length."""
        if self.kind == "mean":
            return jnp.mean(views, axis=1)
        if self.kind == "concat":
            flat = views.reshape(len(views), -1)
            return Linear(views.shape[-1], dtype=self.dtype, name="project")(flat)
        logits = Linear(1, use_bias=False, dtype=self.dtype, name="attend")(views)
        return jnp.sum(jax.nn.softmax(logits, axis=1) * views, axis=1)


class ModalityClassifier(nn.Module):
    """Logits [B, K, 2] of the modality that a view comes from."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, views: Float[Array, "B K D"]) -> Float[Array, "B K 2"]:
        """Classify every view."""
        hidden = Linear(views.shape[-1] // 2, dtype=self.dtype, name="hidden")(views)
        return Linear(2, dtype=self.dtype, name="logits")(jax.nn.relu(hidden))


@jax.custom_vjp
def reversed_gradient(x: Array) -> Array:
    """``x``, whose gradient comes back with the opposite sign (Ganin and Lempitsky, ICML 2015)."""
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, g: (jax.tree.map(jnp.negative, g),))


def diversity(gates: Float[Array, "B K D"]) -> Float[Array, " B"]:
    """How alike the gates of an item are: mean squared cosine of their deviations from the mean."""
    views = gates.shape[1]
    if views < 2:
        return jnp.zeros(len(gates), jnp.float32)
    off = gates - jnp.mean(gates, axis=1, keepdims=True)
    length = jnp.sqrt(jnp.sum(off**2, axis=-1, keepdims=True) + 1e-12)
    cosines = einsum("bkd,bld->bkl", off / length, off / length)
    apart = 1.0 - jnp.eye(views, dtype=jnp.float32)[None]
    return jnp.sum(cosines**2 * apart, axis=(1, 2)) / (views * (views - 1))
