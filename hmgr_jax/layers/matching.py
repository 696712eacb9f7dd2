"""Attention between the fragments of two items, over all pairs of a batch (SCAN, ECCV 2018).

A query x attends to the elements y of a context. With z_yx = <y, x>:

    z'_yx = normalise(z_yx)            over the queries of an item; by default LeakyReLU, then l2
    a_xy  = softmax_y(λ z'_yx)         over the elements of the context
    c_x   = Σ_y a_xy y                 the attended context

The cosine of x and c_x needs no c_x (Gram form): <x, c_x> = Σ_y a_xy z_yx and
|c_x|² = a_xᵀ G a_x with the Gram matrix G = [<y, y'>] of the context.

A direction names queries and contexts: ``t2i`` are words that attend to regions, ``i2t`` regions
that attend to words. Codes of an item are dicts: ``nodes`` [n, N, D] of unit length, ``mask``
[n, N], and ``gram`` [n, N, N] on the side of a context. A matcher of several steps has further
codes, ``query`` (each [n, N, P]) and ``context`` (each [n, N, C]).

Images and captions are matched in blocks, so memory does not grow with their product. Each block is
recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import masked_softmax
from hmgr_jax.layers.pair_blocks import block_size, cut_into_blocks
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

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
ROW = 256
"""Words matched at once."""
CAPTIONS = {"cpu": 4, "other": 16}
"""Captions matched at once when regions attend to words."""
IMAGES = {"cpu": 16, "other": 128}
"""Images matched at once. On CPU a block stays in a core's cache; the sizes for accelerators are
estimates, not measurements."""
PAIRS = 32
"""Given pairs matched at once."""
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


# --- all pairs ----------------------------------------------------------------------------------


def match_all_pairs(
    matchers: Mapping[str, Matching], images: Tree, texts: Tree
) -> Float[Array, "K I C"]:
    """Scores of all pairs at every step: mean similarity of the queries, summed over directions.

    Args:
        matchers: {``t2i`` or ``i2t``: its matcher}.
        images: codes of the images.
        texts: codes of the captions.
    """
    forms = {"t2i": match_words, "i2t": match_regions}

    def score(some: Tree) -> Array:
        return _sum([forms[name](matcher, some, texts) for name, matcher in matchers.items()])

    count, limit = images["nodes"].shape[0], block_size(IMAGES)
    if count <= limit:
        return score(images)
    scores = jax.lax.map(score, cut_into_blocks(images, limit))  # [blocks, K, size, C]
    blocks, steps, size, captions = scores.shape
    return jnp.moveaxis(scores, 1, 0).reshape(steps, blocks * size, captions)[:, :count]


def _sum(scores: list[Array]) -> Array:
    return sum(scores[1:], start=scores[0])


def match_words(matcher: Matching, images: Tree, texts: Tree) -> Float[Array, "K I C"]:
    """Mean similarity of the words of each caption, which attend to the regions of each image.

    The words of all captions are packed into rows without padding; no caption is split over rows.
    """
    count, longest = texts["mask"].shape
    lengths = jnp.sum(texts["mask"], axis=1, dtype=jnp.int32)
    packing = pack(lengths, longest, max(ROW, longest))
    nodes, query = _flatten_items((texts["nodes"], texts.get("query", ())))
    contexts = contexts_of(images)

    def match_row(row: Packing) -> Array:
        same = (row.caption[:, None] == row.caption[None, :]).astype(jnp.float32)
        queries = Queries(
            nodes=nodes[row.source],
            mask=row.valid,
            projected=tuple(part[row.source] for part in query),
            sum_within=lambda x: einsum("byq,qp->byp", x, same),
            max_within=lambda x: max_within_captions(x, row.caption),
        )
        return matcher(contexts, queries)[0]

    def step(_: None, row: Packing) -> tuple[None, Array]:
        shape = (matcher.steps, contexts.nodes.shape[0], row.valid.shape[0])
        zeros = jnp.zeros(shape, jnp.float32)
        return None, jax.lax.cond(jnp.any(row.valid), match_row, lambda _: zeros, row)

    _, cosines = jax.lax.scan(jax.checkpoint(step), None, packing)  # [rows, K, I, words]
    share = 1.0 / jnp.maximum(lengths, 1).astype(jnp.float32)
    belongs = packing.caption[:, :, None] == jnp.arange(count)[None, None, :]
    mean = jnp.where(belongs, share[None, None, :], 0.0).reshape(-1, count)
    flat = jnp.moveaxis(cosines, 0, 2).reshape(-1, mean.shape[0])
    return einsum("nw,wc->nc", flat, mean).reshape(matcher.steps, -1, count)


def match_regions(matcher: Matching, images: Tree, texts: Tree) -> Float[Array, "K I C"]:
    """Mean similarity of the regions of each image, which attend to the words of each caption."""
    (rows, regions), captions = images["mask"].shape, texts["mask"].shape[0]
    nodes, query = _flatten_items((images["nodes"], images.get("query", ())))

    def reduce_within(reduce: Callable[..., Array], x: Array) -> Array:
        one = reduce(x.reshape(*x.shape[:2], rows, regions), axis=3, keepdims=True)
        return jnp.broadcast_to(one, (*one.shape[:3], regions)).reshape(x.shape)

    queries = Queries(
        nodes,
        images["mask"].reshape(-1),
        query,
        sum_within=partial(reduce_within, jnp.sum),
        max_within=partial(reduce_within, jnp.max),
    )
    count = jnp.maximum(jnp.sum(images["mask"], axis=1), 1).astype(jnp.float32)

    def step(_: None, block: Tree) -> tuple[None, Array]:
        cosines = matcher(contexts_of(block), queries)[0]
        cosines = jnp.where(queries.mask[None, None, :], cosines, 0.0)
        sums = jnp.sum(cosines.reshape(*cosines.shape[:2], rows, regions), axis=3)
        return None, sums / count[None, None, :]

    blocks = cut_into_blocks(texts, block_size(CAPTIONS))
    _, scores = jax.lax.scan(jax.checkpoint(step), None, blocks)  # [blocks, K, size, I]
    scores = jnp.moveaxis(scores, 1, 0).reshape(matcher.steps, -1, rows)
    return jnp.swapaxes(scores[:, :captions], 1, 2)


def max_within_captions(
    x: Float[Array, "B Y Q"], caption: Int[Array, " Q"]
) -> Float[Array, "B Y Q"]:
    """Maximum over the words of the same caption, for each word."""
    first = jnp.argmax(caption[:, None] == caption[None, :], axis=1)  # word of the same caption
    largest = jax.ops.segment_max(jnp.moveaxis(x, 2, 0), first, len(caption))
    return jnp.moveaxis(largest[first], 0, 2)


def _flatten_items(tree: Tree) -> Tree:
    """Leaves [n, N, D] as [n · N, D]."""
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), tree)


def contexts_of(codes: Tree) -> Contexts:
    """The context side of the codes of items."""
    return Contexts(codes["nodes"], codes["mask"], codes["gram"], codes.get("context", ()))


# --- given pairs --------------------------------------------------------------------------------


def match_given_pairs(
    matchers: Mapping[str, Matching], images: Tree, texts: Tree
) -> Float[Array, "K P"]:
    """`match_all_pairs` of each image with the caption of the same row."""
    sides = {"t2i": (texts, images), "i2t": (images, texts)}
    return _sum([_match_rows(matcher, *sides[name]) for name, matcher in matchers.items()])


def _match_rows(matcher: Matching, queries: Tree, contexts: Tree) -> Float[Array, "K P"]:
    @jax.checkpoint
    def match_some(pairs: Tree) -> Array:
        cosines, _ = attend_in_pairs(matcher, pairs["queries"], pairs["contexts"])
        mask = pairs["queries"]["mask"]
        total = jnp.sum(jnp.where(mask[None], cosines, 0.0), axis=2)
        return total / jnp.maximum(jnp.sum(mask, axis=1), 1).astype(jnp.float32)[None]

    blocks = cut_into_blocks({"queries": queries, "contexts": contexts}, PAIRS)
    scores = jax.lax.map(match_some, blocks)
    return jnp.moveaxis(scores, 1, 0).reshape(matcher.steps, -1)[:, : len(queries["mask"])]


def attend_in_pairs(
    matcher: Matching, queries: Tree, contexts: Tree
) -> tuple[Float[Array, "K P Q"], Float[Array, "K P Y Q"]]:
    """Similarities and weights of the fragments of P items; each attends to the item of its row."""
    attending = Queries(
        queries["nodes"],
        queries["mask"],
        queries.get("query", ()),
        sum_within=lambda x: jnp.broadcast_to(jnp.sum(x, axis=2, keepdims=True), x.shape),
        max_within=lambda x: jnp.broadcast_to(jnp.max(x, axis=2, keepdims=True), x.shape),
    )
    return matcher(contexts_of(contexts), attending)


# --- words without padding ----------------------------------------------------------------------


class Packing(NamedTuple):
    """Positions of the words of many captions, in ``rows`` of ``size`` words."""

    source: Int[Array, "rows size"]
    """Position in the flattened [captions · L] words; 0 where empty."""
    caption: Int[Array, "rows size"]
    """Index of the caption; -1 where empty."""
    valid: Bool[Array, "rows size"]


def pack(lengths: Int[Array, " C"], longest: int, size: int) -> Packing:
    """Pack captions into rows of ``size`` words, in order and without splitting a caption.

    Args:
        lengths: words of every caption, at most ``longest``.
        longest: the padded length L of the captions.
        size: words of a row, at least ``longest``.

    Returns:
        the number of rows that captions of full length need; the last rows may be empty.
    """
    count = lengths.shape[0]
    rows = -(-count // (size // longest))

    def place(last: tuple[Array, Array], length: Array) -> tuple[tuple[Array, Array], Array]:
        row, end = last
        fits = end + length <= size
        row, start = jnp.where(fits, row, row + 1), jnp.where(fits, end, 0)
        return (row, start + length), row * size + start

    zero = jnp.zeros((), lengths.dtype)
    _, start = jax.lax.scan(place, (zero, zero), lengths)
    word = jnp.arange(longest)[None, :]
    valid = word < lengths[:, None]
    slot = jnp.where(valid, start[:, None] + word, rows * size).reshape(-1)
    source = jnp.full(rows * size, -1).at[slot].set(jnp.arange(count * longest), mode="drop")
    source = source.reshape(rows, size)
    filled = source >= 0
    caption = jnp.where(filled, source // longest, -1)
    return Packing(jnp.maximum(source, 0), caption, filled)
