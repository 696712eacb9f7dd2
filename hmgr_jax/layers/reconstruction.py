"""Nodes rebuilt from the concepts of a pair, and how alike they are (RACG spec 4.5, 4.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum, repeated
from hmgr_jax.layers.masking import masked_softmax
from hmgr_jax.shapes import Array, Bool, Float, Tree

LOGITS = ("cos", "dot")
HEADS = ("mlp", "mean")


class Concepts(NamedTuple):
    """What the nodes of A items may be rebuilt from, beside each of B others."""

    vectors: Float[Array, "A B M D"]
    mask: Bool[Array, "A B M"]


@dataclass(frozen=True)
class Rebuilding:
    """How much of every concept a node takes: a softmax over ``sharpness`` times their products.

    ``dot`` is the plain product (CGAM), ``cos`` divides it by the concept's length; nodes are unit
    vectors.
    """

    sharpness: float = 10.0
    logit: str = "cos"
    dtype: Any = jnp.float32

    def weights(
        self, nodes: Float[Array, "A N D"], concepts: tuple[Concepts, ...]
    ) -> tuple[Float[Array, "A B N _"], ...]:
        """Of every node, over all concepts together; 0 at concepts that are padding."""
        logits = jnp.concatenate([self._logits(nodes, of_one) for of_one in concepts], axis=3)
        mask = jnp.concatenate([of_one.mask for of_one in concepts], axis=2)[:, :, None, :]
        found = masked_softmax(logits, jnp.broadcast_to(mask, logits.shape))
        ends = [of_one.mask.shape[2] for of_one in concepts[:-1]]
        return tuple(jnp.split(found, ends, axis=3))

    def _logits(self, nodes: Array, concepts: Concepts) -> Float[Array, "A B N M"]:
        products = einsum("and,abmd->abnm", nodes, concepts.vectors, dtype=self.dtype)
        if self.logit == "cos":
            # The addend keeps the gradient of a zero concept finite.
            length = jnp.sqrt(jnp.sum(concepts.vectors**2, axis=3) + 1e-12) + 1e-8
            products = products / length[:, :, None, :]
        return self.sharpness * products

    def rebuilt(
        self, weights: tuple[Float[Array, "A B N _"], ...], concepts: tuple[Concepts, ...]
    ) -> Float[Array, "A B N D"]:
        """Every node as the mixture of concepts that it takes."""
        parts = [
            einsum("abnm,abmd->abnd", of_one, concept.vectors, dtype=self.dtype)
            for of_one, concept in zip(weights, concepts, strict=True)
        ]
        return sum(parts[1:], start=parts[0])


def head_lengths(nodes: Float[Array, "n N D"], heads: int) -> Float[Array, "n N K"]:
    """Lengths of the K groups of a node's features."""
    return jnp.sqrt(_group_sums(nodes * nodes, heads) + 1e-12)


def head_cosines(
    nodes: Float[Array, "A N D"],
    lengths: Float[Array, "A N K"],
    rebuilt: Float[Array, "A B N D"],
) -> Float[Array, "A B N K"]:
    """Cosines of the groups of a node with those of what it was rebuilt as."""
    heads = lengths.shape[-1]
    products = _group_sums(nodes[:, None] * rebuilt, heads)
    both = lengths[:, None] * jnp.sqrt(_group_sums(rebuilt * rebuilt, heads) + 1e-12)
    return products / jnp.maximum(both, 1e-8)


def _group_sums(x: Float[Array, "*batch D"], heads: int) -> Float[Array, "*batch K"]:
    return jnp.sum(x.reshape(*x.shape[:-1], heads, -1), axis=-1)


def init_head(key: Array, heads: int, hidden: int) -> Tree:
    """Parameters of ``of_head``: Xavier kernels, zero biases."""
    k_hidden, k_out = jax.random.split(key)
    draw = jax.nn.initializers.xavier_uniform()
    return {
        "hidden": {
            "kernel": draw(k_hidden, (heads, hidden), jnp.float32),
            "bias": jnp.zeros(hidden, jnp.float32),
        },
        "out": {
            "kernel": draw(k_out, (hidden, 1), jnp.float32),
            "bias": jnp.zeros(1, jnp.float32),
        },
    }


def of_head(params: Mapping[str, Any] | None, cosines: Float[Array, "*batch K"]) -> Array:
    """A node's similarity from its cosines: tanh(x W_1 + b_1) W_2 + b_2, or their mean (None)."""
    if params is None:
        return jnp.mean(cosines, axis=-1)
    flat = cosines.reshape(-1, cosines.shape[-1])

    def apply(own: Tree, x: Array) -> Array:
        return einsum("nk,ko->no", x, own["kernel"]) + repeated(own["bias"], x.shape[0])

    return apply(params["out"], jnp.tanh(apply(params["hidden"], flat))).reshape(cosines.shape[:-1])
