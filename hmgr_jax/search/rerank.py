"""Scores of queries with candidates of their own, by a model that looks at pairs."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from hmgr_jax.models.base import Model, Variables
from hmgr_jax.search.code_store import CodeStore
from hmgr_jax.shapes import Float, Int

Codes = Any
AT_ONCE = 16
"""Queries whose candidates are in memory together."""


def score_candidates(
    model: Model,
    variables: Variables,
    asked: tuple[str, Codes],
    gallery: tuple[str, CodeStore],
    candidates: Int[np.ndarray, "q C"],
) -> Float[np.ndarray, "q C"]:
    """``model.score`` of every query with its own candidates.

    Args:
        model: with ``score``.
        variables: its weights.
        asked: modality and codes of the queries, [q, ...].
        gallery: modality and codes of what is searched.
        candidates: their numbers, for every query.
    """
    count = len(candidates)
    scores = np.empty(candidates.shape, np.float32)
    size = min(AT_ONCE, 1 << (count - 1).bit_length())  # few shapes, few compilations
    for first in range(0, count, size):
        rows = np.minimum(np.arange(first, first + size), count - 1)  # the last block is filled up
        queries = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], asked[1])
        found = gallery[1].gather(candidates[rows])
        some = _score(model, asked[0], gallery[0], variables, queries, found)
        scores[first : first + size] = np.asarray(some)[: count - first]
    return scores


@partial(jax.jit, static_argnums=(0, 1, 2))
def _score(
    model: Model, asked: str, searched: str, variables: Variables, queries: Codes, found: Codes
) -> jax.Array:
    """[q, C], a query at a time."""
    in_order = model.modalities.index(asked) < model.modalities.index(searched)

    def of_query(pair: tuple[Codes, Codes]) -> jax.Array:
        query = asked, jax.tree.map(lambda leaf: leaf[None], pair[0])
        if in_order:
            return model.score(variables, query, (searched, pair[1]))[0]
        return model.score(variables, (searched, pair[1]), query)[:, 0]

    return jax.lax.map(of_query, (queries, found))
