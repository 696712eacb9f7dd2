"""An index: search by inner product in vectors that each belong to an item.

    index = Index.build(vectors, [Item("a.jpg#0", caption="...", owner="a.jpg"), ...], model=key)
    numbers, scores = index.search(queries, k=10, without=["a.jpg", None])
    index.items(numbers[0])
    index.save(folder);  index = Index.load(folder, model=key)

Vectors are numbered from 0 in the order of adding. Any number of threads may search one index. To
add or delete meanwhile, change another index and replace this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.search import index_files, versions
from hmgr_jax.search.engines import build_engine, read_engine
from hmgr_jax.search.index_engine import NOBODY, Engine
from hmgr_jax.search.index_faiss import measure_recall
from hmgr_jax.search.index_items import Item, check_items, check_vectors
from hmgr_jax.shapes import Float, Int

SPARE = 8
"""Extra results beyond ``k``, to order equal scores at the end of the list."""


class Index:
    """Vectors of one model in an engine, with their items."""

    def __init__(
        self, engine: Engine, items: list[Item], deleted: set[int], about: dict[str, Any]
    ) -> None:
        self.engine, self.about = engine, about
        self._items, self._deleted = items, deleted
        self._owned: dict[str, list[int]] = {}
        self._register_owners(range(len(items)))

    @classmethod
    def build(
        cls,
        vectors: Float[np.ndarray, "n E"],
        items: Sequence[Item],
        *,
        model: str,
        engine: str | None = None,
        uri: str | None = None,
        about: dict[str, Any] | None = None,
    ) -> Index:
        """An index of vectors float32 [n, E] and their n items.

        Args:
            vectors: the vectors, in the order of ``items``.
            items: the item of each vector.
            model: key of the model that made the vectors, see `hmgr_jax.search.searcher.model_key`;
                vectors of other models cannot be compared with them.
            engine: see `engines.check_engine`; by default flat, and ivf for large indices. An
                approximate engine is tuned, and ``about["recall@10"]`` is its measured recall.
            uri: address of Milvus, by default Milvus Lite in this process.
            about: further values of the manifest.

        Raises:
            UserError: there are no vectors, the numbers of vectors and items differ, an id is empty
                or given twice, the engine is unknown, or its package is missing.
            FoundNonFinite: a vector holds NaN or infinity.
        """
        vectors = check_vectors(vectors, None, "Vectors")
        check_items(vectors, items)
        built, how = build_engine(vectors, engine, uri)
        made = {"model": model, "dim": vectors.shape[1], **(about or {}), **how}
        return cls(built, list(items), set(), made)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: str | None = None,
        verify: bool = False,
        pinned: bool = False,
    ) -> Index:
        """The index that `save` wrote.

        Args:
            folder: the index, whose current version is read.
            model: key that the index must have.
            verify: also hash files with an unchanged time.
            pinned: ``folder`` is that of a version, see `versions.current`.

        Raises:
            UserError: there is no index, it is incomplete or damaged (with the command that builds
                it again), it is of another ``model``, or the package of its engine is missing.
        """
        folder = Path(folder) if pinned else versions.current(folder)
        found = index_files.read(folder, model, verify=verify)
        engine = read_engine(folder, found)
        items = [Item(*values) for values in found.items]
        return cls(engine, items, set(found.deleted), found.about)

    @staticmethod
    def about_of(folder: str | Path) -> dict[str, Any]:
        """The description of a saved index; raises UserError as `load`."""
        return index_files.manifest_of(versions.current(folder))["about"]

    def save(
        self,
        folder: str | Path,
        *,
        command: str = "",
        more: Callable[[Path], None] | None = None,
    ) -> None:
        """Write a new ``folder`` atomically.

        Args:
            folder: must not exist.
            command: builds the index again, for messages.
            more: writes further files into a given folder.

        Raises:
            UserError: the folder exists.
        """

        def fill(partial: Path) -> dict[str, Any]:
            if more is not None:
                more(partial)
            return self.engine.write(partial)

        about = {**self.about, "count": len(self)}
        index_files.write(Path(folder), self._items, sorted(self._deleted), about, fill, command)

    def __len__(self) -> int:
        """The number of vectors that are not deleted."""
        return len(self._items) - len(self._deleted)

    @property
    def size(self) -> int:
        """The number of vectors, also deleted ones."""
        return len(self._items)

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self.about["dim"]

    @property
    def model(self) -> str:
        """Key of the model that made the vectors."""
        return self.about["model"]

    def items(self, numbers: Sequence[int] | Int[np.ndarray, " n"]) -> list[Item]:
        """The items of these vectors."""
        return [self._items[int(number)] for number in numbers]

    def numbers(self) -> Int[np.ndarray, " n"]:
        """Numbers of all vectors that are not deleted."""
        return np.delete(np.arange(len(self._items)), sorted(self._deleted))

    def add(self, vectors: Float[np.ndarray, "n E"], items: Sequence[Item]) -> None:
        """Add vectors float32 [n, E] with the next numbers; an item replaces that of its id.

        Raises:
            UserError: the dimension differs, the numbers of vectors and items differ, or an id is
                empty or given twice.
            FoundNonFinite: a vector holds NaN or infinity.
        """
        vectors = check_vectors(vectors, self.dim, "Vectors")
        check_items(vectors, items)
        known = {self._items[number].id for number in self.numbers()}
        if replaced := [item.id for item in items if item.id in known]:
            self.delete(replaced)
        self.engine.add(vectors)
        self._items += items
        self._register_owners(range(len(self._items) - len(items), len(self._items)))
        self.about = {**self.about, "recall@10": None} if not self.engine.exact else self.about

    def delete(self, ids: Sequence[str]) -> int:
        """Delete the items with these ids; returns their number.

        Raises:
            UserError: an id is unknown; then no item is deleted.
        """
        wanted = set([ids] if isinstance(ids, str) else ids)
        found = [int(n) for n in self.numbers() if self._items[n].id in wanted]
        unknown = sorted(wanted - {self._items[number].id for number in found})
        if unknown:
            raise UserError(f"The index holds no {unknown[0]!r} (of {len(unknown)} unknown ids).")
        self.engine.delete(np.asarray(found, np.int64))
        self._deleted.update(found)
        return len(found)

    def search(
        self,
        queries: Float[np.ndarray, "q E"],
        k: int = 10,
        without: Sequence[str | None] | None = None,
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The best ``k`` of every query: numbers int64 [q, k] and scores float32 [q, k].

        The order is by score, and by number for equal scores.

        Args:
            queries: float32 [q, E].
            k: number of results.
            without: for every query an owner whose items are excluded, or None.

        Raises:
            UserError: there is no query, it has another dimension, ``without`` has another length,
                or ``k`` is larger than the index (without that owner).
            FoundNonFinite: a query holds NaN or infinity.
        """
        queries = check_vectors(queries, self.dim, "Queries")
        excluded = self._excluded(len(queries), without)
        least = self.most(without)
        if not 1 <= k <= least:
            but = " without the items of one owner" if least < len(self) else ""
            raise UserError(f"k must be from 1 to {least}, the size of the index{but}; got {k}.")
        numbers, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), "f4")
        rows, fetch = np.arange(len(queries)), k + SPARE + len(self) - least
        while len(rows):
            fetch = min(fetch, len(self))
            best = self._best(queries[rows], k, fetch, [excluded[row] for row in rows])
            numbers[rows], scores[rows], settled = best
            rows, fetch = rows[~settled], 8 * fetch
        return numbers, scores

    def most(self, without: Sequence[str | None] | None = None) -> int:
        """The largest ``k`` for a search ``without`` these owners."""
        excluded = self._excluded(len(without), without) if without is not None else [[]]
        return len(self) - max(map(len, excluded), default=0)

    def recall(self, queries: Float[np.ndarray, "q E"], k: int = 10) -> float:
        """Share of the true best ``k`` of ``queries`` that a search finds, 0 to 1."""
        numbers = self.numbers()
        return measure_recall(self.engine, queries, numbers, self.engine.vectors(numbers), k)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _best(
        self, queries: np.ndarray, k: int, fetch: int, excluded: Sequence[Sequence[int]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(numbers [q, k], scores [q, k], whether the results are final [q])."""
        numbers, scores = self.engine.search(queries, fetch)
        short = _count_wanted(numbers, excluded) < k
        if short.any():
            again = self.engine.search(queries[short], fetch, thorough=True)
            numbers[short], scores[short] = again
        # No vector beyond the engine's results scores higher than this.
        last = np.where(numbers[:, -1] == NOBODY, -np.inf, scores.min(axis=1))
        for row, unwanted in enumerate(excluded):
            scores[row, np.isin(numbers[row], unwanted)] = -np.inf
        order = np.lexsort((numbers, -scores), axis=1)[:, :k]
        numbers, scores = (np.take_along_axis(x, order, axis=1) for x in (numbers, scores))
        lacking = np.isneginf(scores).any(axis=1) & (not self.engine.exact)
        for at in np.flatnonzero(lacking).tolist():
            numbers[at], scores[at] = self._search_exhaustively(queries[at], k, excluded[at])
        settled = (scores[:, -1] > last) | (not self.engine.exact) | (fetch == len(self))
        return numbers, scores, settled

    def _search_exhaustively(
        self, query: np.ndarray, k: int, unwanted: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` by exhaustive search: equal vectors can disconnect parts of a graph."""
        numbers = np.setdiff1d(self.numbers(), np.asarray(unwanted, np.int64))
        scores = self.engine.vectors(numbers) @ query
        order = np.lexsort((numbers, -scores))[:k]
        return numbers[order], scores[order]

    def _excluded(self, count: int, without: Sequence[str | None] | None) -> list[list[int]]:
        """The numbers to exclude, for every query."""
        if without is None:
            return [[]] * count
        if isinstance(without, str) or len(without) != count:
            raise UserError(f"without must have an owner or None for each of {count} queries.")
        gone = self._deleted
        owned = {owner: self._owned.get(owner, []) for owner in without if owner is not None}
        kept = {owner: [n for n in found if n not in gone] for owner, found in owned.items()}
        return [[] if owner is None else kept[owner] for owner in without]

    def _register_owners(self, numbers: range) -> None:
        for number in numbers:
            if self._items[number].owner:
                self._owned.setdefault(self._items[number].owner, []).append(number)


def _count_wanted(numbers: np.ndarray, excluded: Sequence[Sequence[int]]) -> np.ndarray:
    """The number of results per query, [q], among numbers [q, n], without the excluded ones."""
    found = (numbers != NOBODY).sum(axis=1)
    both = zip(numbers, excluded, strict=True)
    return found - [np.isin(unwanted, row).sum() for row, unwanted in both]
