"""A score of pairs over all pairs, or over given ones, in blocks that bound its memory.

``score`` takes the codes of A items and of B others to [A, B]. Codes are dicts of arrays
[n, N, ...], N nodes an item, with ``mask`` [n, N] among them; what lies behind an item's last node
may be cut off. A block is computed again for its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from hmgr_jax.layers.matching_blocks import cut
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

IMAGES = {"cpu": 16, "other": 128}
CAPTIONS = {"cpu": 4, "other": 8}
PAIRS = 32
"""Items of a block: on CPU what a block works on stays in a core's cache; an accelerator holds the
concepts of 128 x 8 pairs, 36 + 24 vectors each (spec 4.9 asks for 8 to 16 captions)."""
SHORTER = (16, 24)
"""Words that a block of short captions is cut to; each is one more program."""

Score = Callable[[Tree, Tree], Array]


def _here(sizes: Mapping[str, int]) -> int:
    backend = jax.default_backend()
    return sizes[backend if backend in sizes else "other"]


def all_pairs(score: Score, images: Tree, texts: Tree) -> Float[Array, "I C"]:
    """``score`` of all images with all captions.

    Captions are taken in the order of their lengths, and a block of short ones is cut before it is
    scored: a batch is padded to its longest caption, of two or three times the usual length.
    """
    count, (captions, longest) = images["mask"].shape[0], texts["mask"].shape
    sizes = (*(size for size in SHORTER if size < longest), longest)
    order = jnp.argsort(_lengths(texts["mask"]))
    blocks = cut(jax.tree.map(lambda x: x[order], texts), _here(CAPTIONS))

    def of_images(some: Tree) -> Array:
        def up_to(size: int) -> Callable[[Tree], Array]:
            return lambda block: score(some, jax.tree.map(lambda x: x[:, :size], block))

        @jax.checkpoint
        def step(_: None, block: Tree) -> tuple[None, Array]:
            needed = jnp.max(_lengths(block["mask"]))
            which = jnp.sum(needed > jnp.asarray(sizes[:-1], needed.dtype), dtype=jnp.int32)
            return None, jax.lax.switch(which, [up_to(size) for size in sizes], block)

        _, scores = jax.lax.scan(step, None, blocks)  # [blocks, I, size]
        return jnp.moveaxis(scores, 1, 0).reshape(scores.shape[1], -1)[:, :captions]

    found = jax.lax.map(of_images, cut(images, _here(IMAGES)))
    return found.reshape(-1, captions)[:count, jnp.argsort(order)]


def _lengths(mask: Bool[Array, "C L"]) -> Int[Array, " C"]:
    """Place after the last word of every caption."""
    place = jnp.arange(1, mask.shape[1] + 1, dtype=jnp.int32)
    return jnp.max(jnp.where(mask, place[None, :], 0), axis=1)


def aligned_pairs(score: Score, images: Tree, texts: Tree) -> Float[Array, " P"]:
    """``score`` of each image with the caption beside it."""

    @jax.checkpoint
    def of_some(pairs: Tree) -> Array:
        def of_one(pair: Tree) -> Array:
            image, text = jax.tree.map(lambda x: x[None], pair)
            return score(image, text)[0, 0]

        return jax.vmap(of_one)(pairs)

    found = jax.lax.map(of_some, cut((images, texts), PAIRS))
    return found.reshape(-1)[: images["mask"].shape[0]]
