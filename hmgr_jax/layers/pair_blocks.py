"""A score of pairs over all pairs, or over given ones, in blocks that bound its memory.

``score`` takes the codes of A items and of B others, dicts with ``mask`` [n, N] among them, to
[A, B]. A block is computed again for its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from hmgr_jax.layers.matching_blocks import cut
from hmgr_jax.shapes import Array, Float, Tree

IMAGES = {"cpu": 16, "other": 128}
CAPTIONS = {"cpu": 4, "other": 8}
PAIRS = 32
"""Items of a block: on CPU what a block works on stays in a core's cache; an accelerator holds the
concepts of 128 x 8 pairs, 36 + 24 vectors each (spec 4.9 asks for 8 to 16 captions)."""

Score = Callable[[Tree, Tree], Array]


def _here(sizes: Mapping[str, int]) -> int:
    backend = jax.default_backend()
    return sizes[backend if backend in sizes else "other"]


def all_pairs(score: Score, images: Tree, texts: Tree) -> Float[Array, "I C"]:
    """``score`` of all images with all captions."""
    count, captions = images["mask"].shape[0], texts["mask"].shape[0]

    def of_images(some: Tree) -> Array:
        @jax.checkpoint
        def step(_: None, block: Tree) -> tuple[None, Array]:
            return None, score(some, block)

        _, scores = jax.lax.scan(step, None, cut(texts, _here(CAPTIONS)))  # [blocks, I, size]
        return jnp.moveaxis(scores, 1, 0).reshape(scores.shape[1], -1)[:, :captions]

    found = jax.lax.map(of_images, cut(images, _here(IMAGES)))
    return found.reshape(-1, captions)[:count]


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
