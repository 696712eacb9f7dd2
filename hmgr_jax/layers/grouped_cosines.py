"""Similarity of two nodes from the cosines of groups of their features (CGAM, GSMN).

x_k = cos(h^(k), r^(k)) for each of K groups, and the similarity is tanh(x W_1 + b_1) W_2 + b_2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum, repeated
from hmgr_jax.shapes import Array, Float, Tree

HIDDEN = 32
"""Width of the network over the cosines (GSMN)."""


def group_lengths(nodes: Float[Array, "n N D"], groups: int) -> Float[Array, "n N K"]:
    """Euclidean lengths of the K groups of a node's features."""
    return jnp.sqrt(_group_sums(nodes * nodes, groups) + 1e-12)


def group_cosines(
    nodes: Float[Array, "A N D"],
    lengths: Float[Array, "A N K"],
    others: Float[Array, "A B N D"],
) -> Float[Array, "A B N K"]:
    """Cosines of the groups of each node with those of its counterpart for each of B items."""
    groups = lengths.shape[-1]
    products = _group_sums(nodes[:, None] * others, groups)
    both = lengths[:, None] * jnp.sqrt(_group_sums(others * others, groups) + 1e-12)
    return products / jnp.maximum(both, 1e-8)


def _group_sums(x: Float[Array, "*batch D"], groups: int) -> Float[Array, "*batch K"]:
    return jnp.sum(x.reshape(*x.shape[:-1], groups, -1), axis=-1)


def init_head(key: Array, groups: int) -> Tree:
    """Parameters of `apply_head`: Xavier kernels, zero biases."""
    k_hidden, k_out = jax.random.split(key)
    draw = jax.nn.initializers.xavier_uniform()
    return {
        "hidden": {
            "kernel": draw(k_hidden, (groups, HIDDEN), jnp.float32),
            "bias": jnp.zeros(HIDDEN, jnp.float32),
        },
        "out": {
            "kernel": draw(k_out, (HIDDEN, 1), jnp.float32),
            "bias": jnp.zeros(1, jnp.float32),
        },
    }


def apply_head(params: Mapping[str, Any], cosines: Float[Array, "*batch K"]) -> Array:
    """Similarity of a node from its K cosines: tanh(x W_1 + b_1) W_2 + b_2."""
    flat = cosines.reshape(-1, cosines.shape[-1])

    def apply(layer: Tree, x: Array) -> Array:
        return einsum("nk,ko->no", x, layer["kernel"]) + repeated(layer["bias"], x.shape[0])

    out = apply(params["out"], jnp.tanh(apply(params["hidden"], flat)))
    return out.reshape(cosines.shape[:-1])
