"""All pictures against all captions in blocks, so that memory does not grow with their product.

A block is computed again for its gradient: that is as fast as keeping what it needs (BUILD_NOTES).

Codes are dicts: ``nodes`` [n, N, D], ``mask`` [n, N], and, where the side is a query or a context
of several steps, ``query`` (each [n, N, P]), or ``gram`` [n, N, N] and ``context`` (each
[n, N, C]).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.matching import Contexts, Matching, Queries
from hmgr_jax.layers.packing import Packing, pack
from hmgr_jax.shapes import Array, Float, Int, Tree

ROW = 256
"""Words matched at once."""
CAPTIONS = {"cpu": 4, "other": 16}
"""Captions matched at once where regions attend to words."""
PICTURES = {"cpu": 16, "other": 128}
"""Pictures matched at once. What a block works on stays in a CPU core's cache; accelerators want
larger ones (their sizes are reasoned, not measured)."""


def _here(sizes: Mapping[str, int]) -> int:
    backend = jax.default_backend()
    return sizes[backend if backend in sizes else "other"]


def in_blocks(score: Callable[[Tree], Array], images: Tree) -> Float[Array, "K I C"]:
    """``score`` of at most `PICTURES` pictures at a time, put together."""
    count, limit = images["nodes"].shape[0], _here(PICTURES)
    if count <= limit:
        return score(images)
    scores = jax.lax.map(score, cut(images, limit))  # [blocks, K, size, C]
    blocks, steps, size, captions = scores.shape
    return jnp.moveaxis(scores, 1, 0).reshape(steps, blocks * size, captions)[:, :count]


def words_to_regions(matcher: Matching, images: Tree, texts: Tree) -> Float[Array, "K I C"]:
    """Mean over a caption's words of what ``matcher`` gives them, each attending to the regions.

    The words of all captions stand in rows without padding, whole captions in a row.
    """
    count, longest = texts["mask"].shape
    lengths = jnp.sum(texts["mask"], axis=1, dtype=jnp.int32)
    packing = pack(lengths, longest, max(ROW, longest))
    nodes, query = _flat((texts["nodes"], texts.get("query", ())))
    contexts = contexts_of(images)

    def of_row(row: Packing) -> Array:
        same = (row.caption[:, None] == row.caption[None, :]).astype(jnp.float32)
        queries = Queries(
            nodes=nodes[row.source],
            mask=row.valid,
            projected=tuple(own[row.source] for own in query),
            total=lambda x: einsum("byq,qp->byp", x, same),
            highest=lambda x: of_captions(x, row.caption),
        )
        return matcher(contexts, queries)[0]

    def step(_: None, row: Packing) -> tuple[None, Array]:
        shape = (matcher.steps, contexts.nodes.shape[0], row.valid.shape[0])
        nothing = jnp.zeros(shape, jnp.float32)
        return None, jax.lax.cond(jnp.any(row.valid), of_row, lambda _: nothing, row)

    _, cosines = jax.lax.scan(jax.checkpoint(step), None, packing)  # [rows, K, I, words]
    share = 1.0 / jnp.maximum(lengths, 1).astype(jnp.float32)
    mine = packing.caption[:, :, None] == jnp.arange(count)[None, None, :]
    mean = jnp.where(mine, share[None, None, :], 0.0).reshape(-1, count)
    flat = jnp.moveaxis(cosines, 0, 2).reshape(-1, mean.shape[0])
    return einsum("nw,wc->nc", flat, mean).reshape(matcher.steps, -1, count)


def regions_to_words(matcher: Matching, images: Tree, texts: Tree) -> Float[Array, "K I C"]:
    """Mean over a picture's regions of what ``matcher`` gives them, each attending to the words."""
    (pictures, regions), captions = images["mask"].shape, texts["mask"].shape[0]
    nodes, query = _flat((images["nodes"], images.get("query", ())))

    def of_pictures(reduce: Callable[..., Array], x: Array) -> Array:
        one = reduce(x.reshape(*x.shape[:2], pictures, regions), axis=3, keepdims=True)
        return jnp.broadcast_to(one, (*one.shape[:3], regions)).reshape(x.shape)

    queries = Queries(
        nodes,
        images["mask"].reshape(-1),
        query,
        total=partial(of_pictures, jnp.sum),
        highest=partial(of_pictures, jnp.max),
    )
    count = jnp.maximum(jnp.sum(images["mask"], axis=1), 1).astype(jnp.float32)

    def step(_: None, block: Tree) -> tuple[None, Array]:
        cosines = matcher(contexts_of(block), queries)[0]
        cosines = jnp.where(queries.mask[None, None, :], cosines, 0.0)
        sums = jnp.sum(cosines.reshape(*cosines.shape[:2], pictures, regions), axis=3)
        return None, sums / count[None, None, :]

    _, scores = jax.lax.scan(
        jax.checkpoint(step), None, cut(texts, _here(CAPTIONS))
    )  # [blocks, K, size, I]
    scores = jnp.moveaxis(scores, 1, 0).reshape(matcher.steps, -1, pictures)
    return jnp.swapaxes(scores[:, :captions], 1, 2)


def of_captions(x: Float[Array, "B Y Q"], caption: Int[Array, " Q"]) -> Float[Array, "B Y Q"]:
    """The largest among the words of a caption, at each of them."""
    first = jnp.argmax(caption[:, None] == caption[None, :], axis=1)  # of the same caption's words
    largest = jax.ops.segment_max(jnp.moveaxis(x, 2, 0), first, len(caption))
    return jnp.moveaxis(largest[first], 0, 2)


def _flat(tree: Tree) -> Tree:
    """Leaves [n, N, D] as [n · N, D]."""
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), tree)


def contexts_of(codes: Tree) -> Contexts:
    """The codes of items that are attended to."""
    return Contexts(codes["nodes"], codes["mask"], codes["gram"], codes.get("context", ()))


def cut(codes: Tree, limit: int) -> Tree:
    """Leaves [n, ...] to [blocks, at most ``limit``, ...], filled up with the first item."""
    count = jax.tree.leaves(codes)[0].shape[0]
    blocks = -(-count // limit)
    size = -(-count // blocks)
    missing = blocks * size - count

    def of_one(x: Array) -> Array:
        x = jnp.concatenate([x, jnp.repeat(x[:1], missing, axis=0)]) if missing else x
        return x.reshape(blocks, size, *x.shape[1:])

    return jax.tree.map(of_one, codes)
