"""Fragments of one item attend to those of another, in several steps (IMRAM, spec 2.2 to 2.4).

Contexts are a batch of items. Queries are flat, the words of many captions in a row or the regions
of many pictures, all of which attend to every context; or one item a context. The attended context
is not needed for its cosine with the query: that comes from products that are there already and
the context's Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum, repeated
from hmgr_jax.layers.matching_units import Projected, Unit
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


class Contexts(NamedTuple):
    """Items that are attended to, a batch [B]."""

    nodes: Float[Array, "B Y D"]
    mask: Bool[Array, "B Y"]
    gram: Float[Array, "B Y Y"]
    projected: Projected
    """``Unit.context`` of the nodes, each [B, Y, C]; empty where there is one step only."""


class Queries(NamedTuple):
    """Items that attend: all to every context, their fragments in a row, or one to each context."""

    nodes: Float[Array, "*B Q D"]
    mask: Bool[Array, "*B Q"]
    projected: Projected
    """``Unit.query`` of the nodes, each [..., Q, P]; empty where there is one step only."""
    total: Callable[[Float[Array, "B Y Q"]], Float[Array, "B Y Q"]]
    """Sums over the queries of an item, at each of them."""
    highest: Callable[[Float[Array, "B Y Q"]], Float[Array, "B Y Q"]]
    """The largest among the queries of an item, at each of them."""


class Attention(NamedTuple):
    """The settings of an attention step."""

    sharpness: float = 9.0
    """λ, the inverse temperature of the softmax over context elements."""
    raw_norm: str = "clipped_l2norm"
    slope: float = 0.1
    """Of the leaky ReLU; 0 is the paper's ReLU."""
    dtype: Any = jnp.float32

    def weights(
        self, raw: Float[Array, "B Y Q"], contexts: Contexts, queries: Queries
    ) -> Float[Array, "B Y Q"]:
        """How much each query attends to each context element; 0 at padding."""
        logits = self.sharpness * self._normalised(raw, queries)
        logits = jnp.where(contexts.mask[:, :, None], logits, -1e9)
        return jnp.where(contexts.mask[:, :, None], jax.nn.softmax(logits, axis=1), 0.0)

    def _normalised(self, raw: Array, queries: Queries) -> Array:
        if self.raw_norm.startswith("clipped"):
            raw = jnp.where(raw > 0, raw, self.slope * raw)
        mask = queries.mask[None, None, :] if queries.mask.ndim == 1 else queries.mask[:, None, :]
        raw = jnp.where(mask, raw, 0.0)
        if self.raw_norm.endswith("l2norm"):
            # The addend keeps the gradient of an all-zero row finite.
            return raw / (jnp.sqrt(queries.total(raw * raw) + EPSILON**2) + EPSILON)
        if self.raw_norm.endswith("l1norm"):
            return raw / (queries.total(jnp.abs(raw)) + EPSILON)
        if self.raw_norm == "softmax":
            shift = jax.lax.stop_gradient(queries.highest(jnp.where(mask, raw, -jnp.inf)))
            powers = jnp.where(mask, jnp.exp(raw - jnp.where(mask, shift, 0.0)), 0.0)
            return powers / jnp.where(mask, queries.total(powers), 1.0)
        return raw


@runtime_checkable
class Matching(Protocol):
    """How queries are compared with what they attend to, in one direction and so many steps."""

    @property
    def steps(self) -> int:
        """How many there are."""
        ...

    def __call__(
        self, contexts: Contexts, queries: Queries
    ) -> tuple[Float[Array, "K B Q"], Float[Array, "K B Y Q"]]:
        """What every query is worth at each step, and how much it attended to what."""
        ...


class Matcher(NamedTuple):
    """Matching in several steps, in one direction."""

    attention: Attention
    unit: Unit
    params: Tree
    """Of the unit."""
    steps: int

    def __call__(
        self, contexts: Contexts, queries: Queries
    ) -> tuple[Float[Array, "K B Q"], Float[Array, "K B Y Q"]]:
        """Cosine of every query with what it attends to, at each step, and the weights.

        The query is refined from step to step, the cosine is that of the original query, and the
        update after the last step is not computed (spec 2.4).
        """
        dtype = self.attention.dtype
        x, query = queries.nodes, queries.projected
        if x.ndim == 2:
            first = einsum("byd,qd->byq", contexts.nodes, x, dtype=dtype)
            x, query = jax.tree.map(lambda one: repeated(one, first.shape[0]), (x, query))
        else:
            first = einsum("byd,bqd->byq", contexts.nodes, x, dtype=dtype)
        raw = first
        cosines, weights = [], []
        for step in range(self.steps):
            if step:
                raw = einsum("byd,bqd->byq", contexts.nodes, x, dtype=dtype)
            weight = self.attention.weights(raw, contexts, queries)
            cosines.append(_cosine(weight, first, contexts.gram, dtype))
            weights.append(weight)
            if step + 1 == self.steps:
                break
            attended = tuple(
                einsum("byq,byc->bqc", weight, projected, dtype=dtype)
                for projected in contexts.projected
            )
            if step:
                query = self.unit.query(self.params, x)
            x = self.unit.update(x, query, attended)
        return jnp.stack(cosines), jnp.stack(weights)


def _cosine(
    weight: Float[Array, "B Y Q"], first: Array, gram: Float[Array, "B Y Y"], dtype: Any
) -> Float[Array, "B Q"]:
    """<q, c> / |c| of c = Σ_y weight_y y and a unit query q: no c is built (Gram form)."""
    product = jnp.sum(weight * first, axis=1)
    square = jnp.sum(weight * einsum("byz,bzq->byq", gram, weight, dtype=dtype), axis=1)
    return product / jnp.sqrt(jnp.maximum(square, EPSILON**2))
