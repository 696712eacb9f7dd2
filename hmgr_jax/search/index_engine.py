"""The engine of an index: search by inner product, implemented by NumPy, FAISS and Milvus."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hmgr_jax.shapes import Float, Int

FLAT, HNSW, IVF, MILVUS = "flat", "hnsw", "ivf", "milvus"
ENGINES = (FLAT, HNSW, IVF, MILVUS)
NOBODY = -1
"""The number that stands for a missing result."""


class Engine(Protocol):
    """Vectors, numbered from 0 in the order of adding; deleted numbers are not reused."""

    @property
    def exact(self) -> bool:
        """Whether every search is exact."""
        ...

    def add(self, vectors: Float[np.ndarray, "n E"]) -> None:
        """Add vectors float32 with the next numbers."""
        ...

    def delete(self, numbers: Int[np.ndarray, " n"]) -> None:
        """Exclude these numbers from searches."""
        ...

    def search(
        self, queries: Float[np.ndarray, "q E"], k: int, *, thorough: bool = False
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """Numbers int64 and scores float32 of the best ``k``; `NOBODY` if fewer were found.

        A ``thorough`` search visits all vectors.
        """
        ...

    def vectors(self, numbers: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n E"]:
        """The vectors float32 of these numbers."""
        ...

    def write(self, folder: Path) -> dict[str, Any]:
        """Write everything into ``folder``; returns an entry for the manifest."""
        ...

    def close(self) -> None:
        """Close connections and threads."""
        ...


def are_numbers(found: Any, count: int) -> bool:
    """Whether ``found`` is a list of numbers of vectors, of which there are ``count``."""
    return isinstance(found, list) and all(type(n) is int and 0 <= n < count for n in found)
