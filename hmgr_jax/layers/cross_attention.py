"""Attention of the fragments of one item to those of another (SCAN, ECCV 2018).

A query x attends to the elements y of a context. With z_yx = <y, x>:

    z'_yx = normalise(z_yx)            over the queries of an item; by default LeakyReLU, then l2
    a_xy  = softmax_y(λ z'_yx)         over the elements of the context
    c_x   = Σ_y a_xy y                 the attended context

The cosine of x and c_x needs no c_x (Gram form): <x, c_x> = Σ_y a_xy z_yx and
|c_x|² = a_xᵀ G a_x with the Gram matrix G = [<y, y'>] of the context.

Codes of an item are dicts: ``nodes`` [n, N, D] of unit length, ``mask`` [n, N], and ``gram``
[n, N, N] on the side of a context. A matcher of several steps has further codes, ``query`` (each
[n, N, P]) and ``context`` (each [n, N, C]).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import masked_softmax
from hmgr_jax.shapes import Array, Bool, Float, Tree

RAW_NORMS = (
    "clipped_l2norm",  # leaky ReLU, then l2 over the queries of an item (the default)
    "l2norm",
    "softmax",  # over the queries of an item
    "clipped_l1norm",
    "l1norm",
    "clipped",
    "no_norm",
)
EPSILON = 1e-8
Projected = tuple[Array, ...]
"""Linear maps of fragments, as separate arrays: slicing one array costs a copy in the gradient."""
ReduceQueries = Callable[[Float[Array, "B Y Q"]], Float[Array, "B Y Q"]]


class Contexts(NamedTuple):
    """A batch of contexts, the items that queries attend to."""

    nodes: Float[Array, "B Y D"]
    mask: Bool[Array, "B Y"]
    gram: Float[Array, "B Y Y"]
    projected: Projected
    """The codes ``context``; empty for a single step."""


def contexts_of(codes: Tree) -> Contexts:
    """The context side of the codes of items."""
    return Contexts(codes["nodes"], codes["mask"], codes["gram"], codes.get("context", ()))


class Queries(NamedTuple):
    """Fragments that attend: all to every context ([Q, ...]), or one item per context."""

    nodes: Float[Array, "*B Q D"]
    mask: Bool[Array, "*B Q"]
    projected: Projected
    """The codes ``query``; empty for a single step."""
    sum_within: ReduceQueries
    """Sum over the queries of the same item, for each query."""
    max_within: ReduceQueries
    """Maximum over the queries of the same item, for each query."""


class Attention(NamedTuple):
    """The settings of one attention step."""

    sharpness: float = 9.0
    """λ, the inverse temperature of the softmax over context elements."""
    raw_norm: str = "clipped_l2norm"
    slope: float = 0.1
    """Slope of the leaky ReLU; 0 is a ReLU."""
    dtype: Any = jnp.float32

    def weights(
        self, raw: Float[Array, "B Y Q"], contexts: Contexts, queries: Queries
    ) -> Float[Array, "B Y Q"]:
        """Weights a_xy from the products z_yx; 0 at padding."""
        logits = self.sharpness * self._normalise(raw, queries)
        logits = jnp.where(contexts.mask[:, :, None], logits, -1e9)
        return jnp.where(contexts.mask[:, :, None], jax.nn.softmax(logits, axis=1), 0.0)

    def _normalise(self, raw: Array, queries: Queries) -> Array:
        if self.raw_norm.startswith("clipped"):
            raw = jnp.where(raw > 0, raw, self.slope * raw)
        mask = queries.mask[None, None, :] if queries.mask.ndim == 1 else queries.mask[:, None, :]
        raw = jnp.where(mask, raw, 0.0)
        if self.raw_norm.endswith("l2norm"):
            # The addend keeps the gradient of an all-zero row finite.
            return raw / (jnp.sqrt(queries.sum_within(raw * raw) + EPSILON**2) + EPSILON)
        if self.raw_norm.endswith("l1norm"):
            return raw / (queries.sum_within(jnp.abs(raw)) + EPSILON)
        if self.raw_norm == "softmax":
            shift = jax.lax.stop_gradient(queries.max_within(jnp.where(mask, raw, -jnp.inf)))
            powers = jnp.where(mask, jnp.exp(raw - jnp.where(mask, shift, 0.0)), 0.0)
            return powers / jnp.where(mask, queries.sum_within(powers), 1.0)
        return raw


@runtime_checkable
class Matching(Protocol):
    """Compares queries with their attended contexts, in one direction and ``steps`` steps."""

    @property
    def steps(self) -> int:
        """Number of matching steps K."""
        ...

    def __call__(
        self, contexts: Contexts, queries: Queries
    ) -> tuple[Float[Array, "K B Q"], Float[Array, "K B Y Q"]]:
        """Similarities of every query, and attention weights, at each step."""
        ...


class CosineMatcher(NamedTuple):
    """One step: the cosine of every query with its attended context (SCAN)."""

    attention: Attention
    steps: int = 1

    def __call__(
        self, contexts: Contexts, queries: Queries
    ) -> tuple[Float[Array, "1 B Q"], Float[Array, "1 B Y Q"]]:
        """Cosines and weights."""
        raw = products(contexts, queries.nodes, self.attention.dtype)
        weight = self.attention.weights(raw, contexts, queries)
        cosine = attended_cosine(weight, raw, contexts.gram, self.attention.dtype)
        return cosine[None], weight[None]


def products(
    contexts: Contexts, queries: Float[Array, "*B Q D"], dtype: Any
) -> Float[Array, "B Y Q"]:
    """Inner products of every context element with every query."""
    formula = "byd,qd->byq" if queries.ndim == 2 else "byd,bqd->byq"
    return einsum(formula, contexts.nodes, queries, dtype=dtype)


def attended_cosine(
    weight: Float[Array, "B Y Q"],
    raw: Float[Array, "B Y Q"],
    gram: Float[Array, "B Y Y"],
    dtype: Any,
) -> Float[Array, "B Q"]:
    """Cosine of a unit query and c = Σ_y weight_y y, in Gram form."""
    product = jnp.sum(weight * raw, axis=1)
    square = jnp.sum(weight * einsum("byz,bzq->byq", gram, weight, dtype=dtype), axis=1)
    return product / jnp.sqrt(jnp.maximum(square, EPSILON**2))


def scan_attention(
    items: Mapping[str, Array],
    others: Mapping[str, Array],
    dtype: Any,
    sharpness: float = 9.0,
    slope: float = 0.1,
) -> Float[Array, "A B N M"]:
    """Attention of every node of A ``items`` to the nodes of each of B ``others`` (SCAN).

    `Attention` with ``clipped_l2norm``, in the layout of a block score.
    """
    raw = einsum("and,bmd->abnm", items["nodes"], others["nodes"], dtype=dtype)
    raw = jnp.where(items["mask"][:, None, :, None], jnp.where(raw > 0, raw, slope * raw), 0.0)
    raw = raw / (jnp.sqrt(jnp.sum(raw * raw, axis=2, keepdims=True) + 1e-16) + 1e-8)
    mask = jnp.broadcast_to(others["mask"][None, :, None, :], raw.shape)
    return masked_softmax(sharpness * raw, mask)
