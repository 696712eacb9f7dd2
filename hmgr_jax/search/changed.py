"""An index without some of its items, and with others added or replaced."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.search.encoded_blocks import concatenate
from hmgr_jax.search.followed import Followed
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.index_engine import HNSW, IVF, MILVUS
from hmgr_jax.search.rerank import CodeStore
from hmgr_jax.search.searcher import Searcher

NOTHING_LEFT = (
    "No item would be left, and an index cannot be empty: remove the folder of the index instead."
)
OF_BUILDING = ("model", "engine", "dim", "count", "effort", "recall@10")
"""Values of the manifest that building sets."""


def changed(
    searcher: Searcher, dropped: set[str], codes: Any, items: list[Item], followed: Followed
) -> Searcher:
    """A searcher without the items of some ids, and with others added or replaced."""
    retriever, index = searcher.retriever, searcher.index
    unwanted = dropped | {item.id for item in items}
    vectors = None
    if items:
        vectors = retriever.evaluator.vectors(retriever.variables, searcher.modality, codes)
    engine = index.about["engine"]
    numbers = index.numbers()
    if engine in (HNSW, IVF):  # building takes minutes, and numbers stay
        present = [item.id for item in index.items(numbers) if item.id in unwanted]
        if len(present) == len(numbers) and vectors is None:
            raise UserError(NOTHING_LEFT)
        if present:
            index.delete(present)
        if vectors is not None:
            index.add(vectors, items)
        kept = np.arange(len(searcher.codes)) if searcher.codes is not None else numbers
    else:
        all_items = index.items(numbers)
        stays = [item.id not in unwanted for item in all_items]
        kept = numbers[stays]
        former = index.engine.vectors(kept) if len(kept) else None
        stacked = [part for part in (former, vectors) if part is not None]
        if not stacked:
            raise UserError(NOTHING_LEFT)
        index = Index.build(
            np.concatenate(stacked),
            [*index.items(kept), *items],
            model=index.model,
            engine=engine,
            uri=index.engine.uri if engine == MILVUS else None,  # type: ignore[attr-defined]
            about={k: v for k, v in index.about.items() if k not in OF_BUILDING},
        )
    store = searcher.codes
    if store is not None:
        parts = [store.gather(kept)] if len(kept) else []
        store = CodeStore.of(concatenate([*parts, codes] if items else parts))
    return Searcher(retriever, index, store, followed)
