"""Scores of pairs by the attention of one item's fragments to the other's, in blocks.

A direction names queries and contexts: ``t2i`` are words that attend to regions, ``i2t`` regions
that attend to words; see `hmgr_jax.layers.cross_attention` for codes and matchers.

Images and captions are matched in blocks, so memory does not grow with their product. Each block is
recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from hmgr_jax.layers.cross_attention import Matching, Queries, contexts_of
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.packing import Packing, pack
from hmgr_jax.layers.pair_blocks import block_size, cut_into_blocks
from hmgr_jax.shapes import Array, Float, Int, Tree

ROW = 256
"""Words matched at once."""
CAPTIONS = {"cpu": 4, "other": 16}
"""Captions matched at once when regions attend to words."""
IMAGES = {"cpu": 16, "other": 128}
"""Images matched at once. On CPU a block stays in a core's cache; the sizes for accelerators are
estimates, not measurements."""
PAIRS = 32
"""Given pairs matched at once."""


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
