"""Exact search with NumPy alone, for galleries that need no package of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import read_npy
from hmgr_jax.files.workdir import write_npy_atomic
from hmgr_jax.search.index_engine import NOBODY, are_numbers
from hmgr_jax.shapes import Float, Int

KIND, FILE = "numpy", "vectors.npy"
BELOW = 20_000
"""A flat index of fewer vectors needs no FAISS."""
QUERIES = 256
"""Queries whose products with all vectors are in memory at once."""


class NumpyEngine:
    """All vectors in one array; the number of a vector is its row."""

    exact = True

    def __init__(self, vectors: Float[np.ndarray, "n E"], deleted: list[int] | None = None) -> None:
        self._vectors = np.array(vectors, np.float32)
        self._deleted = np.zeros(len(vectors), bool)
        self._deleted[deleted or []] = True

    @classmethod
    def read(cls, folder: Path, about: dict[str, Any], count: int, dim: int) -> NumpyEngine:
        """The engine that `write` wrote; see `FaissEngine.read`.

        Raises:
            UserError: NumPy cannot read the file, or it holds other vectors.
        """
        deleted = about.get("deleted")
        if not are_numbers(deleted, count):
            raise UserError(f"{folder} has no valid description of its engine ({about!r:.60})")
        vectors = read_npy(folder / FILE, "the index is damaged")
        if (vectors.shape, vectors.dtype) != ((count, dim), np.float32):
            raise UserError(
                f"{folder / FILE} holds {vectors.dtype} of shape {list(vectors.shape)}, not "
                f"{count} vectors of dimension {dim} in float32"
            )
        return cls(vectors, deleted)

    def __len__(self) -> int:
        return len(self._vectors)

    def add(self, vectors: Float[np.ndarray, "n E"]) -> None:
        """Add vectors with the next numbers."""
        self._vectors = np.concatenate([self._vectors, vectors])
        self._deleted = np.concatenate([self._deleted, np.zeros(len(vectors), bool)])

    def delete(self, numbers: Int[np.ndarray, " n"]) -> None:
        """Exclude vectors from searches."""
        self._deleted[numbers] = True

    def search(
        self, queries: Float[np.ndarray, "q E"], k: int, *, thorough: bool = False
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The best ``k``, with scores in double precision, as those of `FaissEngine`."""
        numbers = np.full((len(queries), k), NOBODY, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        some = min(k, int((~self._deleted).sum()))
        if not some:
            return numbers, scores
        for first in range(0, len(queries), QUERIES):
            asked = queries[first : first + QUERIES]
            found = asked @ self._vectors.T
            found[:, self._deleted] = -np.inf
            best = np.argpartition(-found, some - 1, axis=1)[:, :some]
            for row, query, own in zip(range(first, first + len(asked)), asked, best, strict=True):
                exact = (self._vectors[own].astype(np.float64) * query).sum(axis=1)
                order = np.lexsort((own, -exact))
                numbers[row, :some], scores[row, :some] = own[order], exact[order]
        return numbers, scores

    def vectors(self, numbers: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n E"]:
        """The vectors of these numbers."""
        return self._vectors[numbers]

    def write(self, folder: Path) -> dict[str, Any]:
        """Write one file; deleted vectors stay in it."""
        write_npy_atomic(folder / FILE, self._vectors)
        return {"kind": KIND, "deleted": np.flatnonzero(self._deleted).tolist()}

    def close(self) -> None:
        """Do nothing, since no file is open."""
