"""Apply a score of item pairs to all pairs, or to given pairs, in blocks that bound its memory.

``score`` maps the codes of A images and of C captions to the matrix [A, C]. Codes are dicts of
arrays with a leading item axis and a ``mask`` [n, N] of their nodes. Each block is recomputed in
the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp

from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

IMAGES = {"cpu": 16, "other": 128}
"""Images per block. On CPU a block stays in a core's cache; the size for accelerators is an
estimate, not a measurement."""
CAPTIONS = {"cpu": 4, "other": 8}
"""Captions per block."""
PAIRS = 32
"""Given pairs per block."""
WORDS = (16, 24)
"""Lengths to which blocks of short captions are cut; each compiles one more program."""

Score = Callable[[Tree, Tree], Array]


def block_size(sizes: Mapping[str, int]) -> int:
    """The entry of ``sizes`` for the default backend, or its entry ``other``."""
    backend = jax.default_backend()
    return sizes[backend if backend in sizes else "other"]


def cut_into_blocks(codes: Tree, limit: int) -> Tree:
    """Leaves [n, ...] as [blocks, at most ``limit``, ...], padded with copies of item 0."""
    count = jax.tree.leaves(codes)[0].shape[0]
    blocks = -(-count // limit)
    size = -(-count // blocks)
    missing = blocks * size - count

    def cut(x: Array) -> Array:
        x = jnp.concatenate([x, jnp.repeat(x[:1], missing, axis=0)]) if missing else x
        return x.reshape(blocks, size, *x.shape[1:])

    return jax.tree.map(cut, codes)


def score_all_pairs(
    score: Score, images: Tree, texts: Tree, node_codes: Collection[str]
) -> Float[Array, "I C"]:
    """Scores of all images with all captions.

    Captions are sorted by length, and a block of short captions is cut to fewer words before it
    is scored: a batch is padded to its longest caption, which is two or three times the usual
    length.

    Args:
        score: (codes of A images, codes of C captions) to [A, C].
        images: codes of the images.
        texts: codes of the captions.
        node_codes: names of the codes [n, N, ...] whose second axis is the node axis. Only these
            are cut; all other codes are passed to ``score`` unchanged.
    """
    count, (captions, longest) = images["mask"].shape[0], texts["mask"].shape
    sizes = (*(size for size in WORDS if size < longest), longest)
    order = jnp.argsort(_lengths(texts["mask"]))
    sorted_texts = jax.tree.map(lambda x: x[order], texts)
    blocks = cut_into_blocks(sorted_texts, block_size(CAPTIONS))

    def shorten(block: Tree, size: int) -> Tree:
        return {
            name: jax.tree.map(lambda x: x[:, :size], code) if name in node_codes else code
            for name, code in block.items()
        }

    def score_images(some: Tree) -> Array:
        branches = [lambda block, n=size: score(some, shorten(block, n)) for size in sizes]

        @jax.checkpoint
        def step(_: None, block: Tree) -> tuple[None, Array]:
            needed = jnp.max(_lengths(block["mask"]))
            which = jnp.sum(needed > jnp.asarray(sizes[:-1], needed.dtype), dtype=jnp.int32)
            return None, jax.lax.switch(which, branches, block)

        _, scores = jax.lax.scan(step, None, blocks)  # [blocks, I, size]
        return jnp.moveaxis(scores, 1, 0).reshape(scores.shape[1], -1)[:, :captions]

    scores = jax.lax.map(score_images, cut_into_blocks(images, block_size(IMAGES)))
    return scores.reshape(-1, captions)[:count, jnp.argsort(order)]


def _lengths(mask: Bool[Array, "C L"]) -> Int[Array, " C"]:
    """The position after the last valid word of every caption."""
    position = jnp.arange(1, mask.shape[1] + 1, dtype=jnp.int32)
    return jnp.max(jnp.where(mask, position[None, :], 0), axis=1)


def score_given_pairs(score: Score, images: Tree, texts: Tree) -> Float[Array, " P"]:
    """Scores of each image with the caption of the same row."""

    @jax.checkpoint
    def score_some(pairs: Tree) -> Array:
        def score_one(pair: Tree) -> Array:
            image, text = jax.tree.map(lambda x: x[None], pair)
            return score(image, text)[0, 0]

        return jax.vmap(score_one)(pairs)

    scores = jax.lax.map(score_some, cut_into_blocks((images, texts), PAIRS))
    return scores.reshape(-1)[: images["mask"].shape[0]]
