"""What finds vectors by their inner product: the side of an index that FAISS or Milvus fills."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hmgr_jax.shapes import Float, Int

FLAT, HNSW, IVF, MILVUS = "flat", "hnsw", "ivf", "milvus"
ENGINES = (FLAT, HNSW, IVF, MILVUS)
NOBODY = -1
"""The number where an engine found nothing."""


class Engine(Protocol):
    """Vectors by their numbers, from 0 on in the order of adding; a deleted number stays free."""

    @property
    def exact(self) -> bool:
        """Whether every search finds the very best."""
        ...

    def add(self, vectors: Float[np.ndarray, "n E"]) -> None:
        """Vectors float32 for the next numbers."""
        ...

    def delete(self, numbers: Int[np.ndarray, " n"]) -> None:
        """These numbers are found no longer."""
        ...

    def search(
        self, queries: Float[np.ndarray, "q E"], k: int, *, thorough: bool = False
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """Numbers int64 and scores float32 of the best ``k``; `NOBODY` where fewer were found.

        ``thorough``: look everywhere, whatever that takes.
        """
        ...

    def vectors(self, numbers: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n E"]:
        """The vectors float32 of these numbers."""
        ...

    def write(self, folder: Path) -> dict[str, Any]:
        """Write everything into ``folder``; what the manifest must remember of it."""
        ...

    def close(self) -> None:
        """Let go of connections and threads."""
        ...
