"""Which words of a caption are neighbours, and what kind of neighbours (ReSG spec 5.3)."""

from __future__ import annotations

import jax.numpy as jnp

from hmgr_jax.layers.semantic_graph import KINDS
from hmgr_jax.shapes import Array, Bool, Int

FARTHEST = 8
"""Signed distances beyond it are one kind."""
SELF, APART, FIRST_ARC = 0, 1, 2
"""Kinds of a word with itself and of words without an arc; two kinds a relation follow."""
RELATIONS = (KINDS - FIRST_ARC) // 2
"""How many dependency relations there may be."""


def distance_kinds(size: int) -> Int[Array, "L L"]:
    """The signed distance j - i, clipped to ±8, as 0 to 16."""
    place = jnp.arange(size)
    return jnp.clip(place[None, :] - place[:, None], -FARTHEST, FARTHEST) + FARTHEST


def _arcs(heads: Int[Array, "B L"]) -> Bool[Array, "B L L"]:
    """Where j is the head of i; a word that has none is its own."""
    place = jnp.arange(heads.shape[1])
    arcs = heads[:, :, None] == place[None, None, :]
    return arcs & (place[:, None] != place[None, :])[None]


def dependency_support(heads: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Bool[Array, "B L L"]:
    """Edges between a word and its head, both ways, and self loops.

    Args:
        heads: position of each word's head; its own where it has none.
        mask: the words that there are.
    """
    arcs = _arcs(heads)
    own = jnp.eye(heads.shape[1], dtype=bool)[None]
    return (arcs | jnp.swapaxes(arcs, 1, 2) | own) & mask[:, :, None] & mask[:, None, :]


def dependency_kinds(heads: Int[Array, "B L"], relations: Int[Array, "B L"]) -> Int[Array, "B L L"]:
    """Kinds of all pairs: oneself, no arc, and for every relation to the head and from it.

    Args:
        heads: as for `dependency_support`.
        relations: of each word to its head, below `RELATIONS`.
    """
    up = _arcs(heads)
    down = jnp.swapaxes(up, 1, 2)
    kind = FIRST_ARC + 2 * jnp.clip(relations, 0, RELATIONS - 1)
    found = jnp.where(up, kind[:, :, None], jnp.where(down, kind[:, None, :] + 1, APART))
    return jnp.where(jnp.eye(heads.shape[1], dtype=bool)[None], SELF, found)
