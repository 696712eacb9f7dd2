"""One version of an index, as requests see it: a request uses one snapshot from start to end."""

from __future__ import annotations

import functools
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.search.index import Item
from hmgr_jax.search.searcher import Searcher

BLOCK = 1 << 16
"""Vectors of a filtered search that are compared at once."""


class Filters(NamedTuple):
    """Conditions that results meet."""

    folder: str = ""
    """Ids begin with this folder."""
    after: float | None = None
    """Earliest time of the file, seconds since 1970."""
    before: float | None = None

    def any(self) -> bool:
        """Whether there is a filter."""
        return self != Filters()


class Snapshot:
    """A searcher of one version, its ids and the dates of its files."""

    def __init__(self, searcher: Searcher, version: Path) -> None:
        self.searcher, self.version = searcher, str(version)
        index = searcher.index
        numbers = index.numbers()
        self.numbers = {i.id: int(n) for n, i in zip(numbers, index.items(numbers), strict=True)}

    @classmethod
    def open(cls, folder: Path, workdir: str | None = None) -> Snapshot:
        """The current version of an index; see `Searcher.open`."""
        searcher = Searcher.open(folder, workdir)
        assert searcher.version is not None
        return cls(searcher, searcher.version)

    def renewed(self, version: Path) -> Snapshot:
        """The snapshot of another version, of the same model.

        Raises:
            UserError: it cannot be read, or is of another model or modality.
        """
        mine = self.searcher
        found = Searcher.read(version, mine.retriever, mine.index.model)
        if found.modality != mine.modality:
            raise UserError(
                f"{version} holds {found.modality} items, not {mine.modality}: serve it by another "
                "process."
            )
        return Snapshot(found, version)

    def item(self, id: str) -> Item | None:
        """The item of an id."""
        number = self.numbers.get(id)
        return None if number is None else self.searcher.index.items([number])[0]

    def vector(self, id: str) -> np.ndarray:
        """The vector of an item as a query within its own modality, float32 [E]."""
        found = self.searcher.index.engine.vectors(np.array([self.numbers[id]]))[0].copy()
        if self.searcher.retriever.evaluator.calibration is not None:
            found[-2:] = 0.0  # see `Calibration.widened`
        return found

    def search(
        self, queries: np.ndarray, k: int, filters: Filters, without: frozenset[int] = frozenset()
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` (or all there are): numbers and scores [q, at most k]."""
        index = self.searcher.index
        if filters.any():
            return self._search_among(queries, k, self.matching(filters), without)
        most = min(k + len(without), len(index))
        numbers, scores = index.search(queries, most)
        if not without:
            return numbers, scores
        kept = [~np.isin(row, list(without)) for row in numbers]
        pairs = [
            (n[keep][:k], s[keep][:k]) for n, s, keep in zip(numbers, scores, kept, strict=True)
        ]
        return np.stack([n for n, _ in pairs]), np.stack([s for _, s in pairs])

    def matching(self, filters: Filters) -> np.ndarray:
        """Numbers of the items that fit filters, int64 [n]."""
        prefix = filters.folder.strip("/") + "/"
        found = np.fromiter(
            (n for id, n in self.numbers.items() if prefix == "/" or id.startswith(prefix)),
            np.int64,
        )
        if filters.after is None and filters.before is None:
            return found
        dates = self.dates[found]
        first = -np.inf if filters.after is None else filters.after
        last = np.inf if filters.before is None else filters.before
        return found[(dates >= first) & (dates <= last)]

    @functools.cached_property
    def dates(self) -> np.ndarray:
        """Time of the file of each number, seconds since 1970, or NaN: float64 [all numbers]."""
        found = np.full(max(self.numbers.values(), default=-1) + 1, np.nan)
        for id, number in self.numbers.items():
            found[number] = self.date(id)
        return found

    def date(self, id: str) -> float:
        """Time of the file of an item, seconds since 1970, or NaN."""
        stamp = self.searcher.followed.stamps.get(id)
        if stamp is not None:
            return stamp[1] / 1e9
        item = self.item(id)
        try:
            return os.stat(item.picture).st_mtime if item and item.picture else np.nan
        except (OSError, ValueError):
            return np.nan

    def day(self, id: str) -> str | None:
        """The date of the file of an item, as 2026-12-01."""
        seconds = self.date(id)
        return (
            None if np.isnan(seconds) else datetime.fromtimestamp(seconds, UTC).date().isoformat()
        )

    def _search_among(
        self, queries: np.ndarray, k: int, numbers: np.ndarray, without: frozenset[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.sort(np.setdiff1d(numbers, list(without)))
        scores = np.zeros((len(queries), len(numbers)), np.float32)
        for first in range(0, len(numbers), BLOCK):
            own = self.searcher.index.engine.vectors(numbers[first : first + BLOCK])
            scores[:, first : first + BLOCK] = queries @ own.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return numbers[order], np.take_along_axis(scores, order, axis=1)
