"""FAISS in the process: every vector compared (flat), or a graph (HNSW) or cells (IVF) of them.

Scores are computed anew from the vectors found, so that equal vectors have equal scores wherever
they lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.search.index_engine import FLAT, HNSW, IVF, NOBODY
from hmgr_jax.shapes import Float, Int

FILE = "vectors.faiss"
LINKS = 16
"""HNSW: neighbours of a node (M)."""
CONSTRUCTION = 64
"""HNSW: candidates looked at for them (efConstruction)."""
EFFORT = {HNSW: 64, IVF: 16}
"""Where `tuned` begins: candidates of a search in HNSW (efSearch), cells that IVF looks into."""
MOST_CANDIDATES = 4096
"""HNSW: who needs more is faster with flat."""
TRAINED_ON, ROUNDS = 39, 10
"""IVF: vectors a cell that its centre is learnt from, the fewest that FAISS takes without a
warning, and rounds of k-means: more take minutes at a million and find no more."""
ROUND = 2**24
"""Numbers of the vectors that are scored anew at once."""


def demand_faiss() -> Any:
    """FAISS, or a sentence that names the extra."""
    try:
        import faiss
    except ImportError:
        raise UserError(
            "Indices are searched by FAISS, which is not here: install it with pip install "
            "'hmgr-jax[index]'."
        ) from None
    return faiss


class FaissEngine:
    """One FAISS index; the numbers of vectors are their places in it."""

    def __init__(self, kind: str, index: Any, deleted: Int[np.ndarray, " n"] | None = None) -> None:
        self._faiss = demand_faiss()
        self.kind, self._index = kind, index
        self.effort = EFFORT.get(kind, 0)
        self._deleted = np.zeros(0, np.int64) if deleted is None else deleted

    @classmethod
    def build(cls, kind: str, vectors: Float[np.ndarray, "n E"]) -> FaissEngine:
        """An engine of ``kind`` with ``vectors`` in it."""
        faiss = demand_faiss()
        dim = vectors.shape[1]
        if kind == FLAT:
            index = faiss.IndexFlatIP(dim)
        elif kind == HNSW:
            index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = CONSTRUCTION
        else:
            index = _trained_cells(faiss, vectors)
        engine = cls(kind, index)
        engine.add(vectors)
        return engine

    @classmethod
    def read(cls, folder: Path, about: dict[str, Any]) -> FaissEngine:
        """What `write` left.

        Raises:
            UserError: FAISS cannot read the file.
        """
        faiss = demand_faiss()
        try:
            index = faiss.read_index(str(folder / FILE))
        except RuntimeError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise UserError(f"{folder / FILE} is no FAISS index ({reason})") from None
        engine = cls(about["kind"], index, np.asarray(about["deleted"], np.int64))
        engine.effort = about["effort"]
        if about["kind"] == IVF:
            index.make_direct_map()
        return engine

    @property
    def exact(self) -> bool:
        """Only flat looks at every vector."""
        return self.kind == FLAT

    @property
    def dim(self) -> int:
        """E."""
        return self._index.d

    def __len__(self) -> int:
        return self._index.ntotal

    def add(self, vectors: Float[np.ndarray, "n E"]) -> None:
        """Vectors for the next numbers."""
        self._index.add(vectors)
        if self.kind == IVF:
            self._index.make_direct_map()

    def delete(self, numbers: Int[np.ndarray, " n"]) -> None:
        """HNSW cannot take nodes out of its graph: all kinds pass over them when they search."""
        self._deleted = np.union1d(self._deleted, numbers)

    def search(
        self, queries: Float[np.ndarray, "q E"], k: int, *, thorough: bool = False
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The best ``k`` by the vectors themselves; thorough IVF looks into every cell."""
        _, numbers = self._index.search(queries, k, params=self._parameters(k, thorough))
        scores = np.full(numbers.shape, -np.inf, np.float32)
        step = max(1, ROUND // (k * self.dim))
        for first in range(0, len(queries), step):
            some = slice(first, first + step)
            found = self.vectors(np.maximum(numbers[some], 0).reshape(-1))
            found = found.reshape(*numbers[some].shape, self.dim).astype(np.float64)
            scores[some] = (found * queries[some, None, :]).sum(axis=2)
        scores[numbers == NOBODY] = -np.inf
        return numbers, scores

    def vectors(self, numbers: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n E"]:
        """The vectors of these numbers."""
        return self._index.reconstruct_batch(np.ascontiguousarray(numbers, np.int64))

    def write(self, folder: Path) -> dict[str, Any]:
        """One file; deleted vectors stay in it."""
        self._faiss.write_index(self._index, str(folder / FILE))
        return {"kind": self.kind, "effort": self.effort, "deleted": self._deleted.tolist()}

    def close(self) -> None:
        """Nothing is open."""

    def most_effort(self) -> int:
        """From here on more changes nothing."""
        return self._index.nlist if self.kind == IVF else min(len(self), MOST_CANDIDATES)

    def _parameters(self, k: int, thorough: bool) -> Any:
        faiss, options = self._faiss, {}
        if len(self._deleted):
            # Python objects that the parameters point into are kept by the keyword arguments.
            options["sel"] = faiss.IDSelectorNot(faiss.IDSelectorBatch(self._deleted))
        if self.kind == HNSW:
            effort = len(self) if thorough else max(self.effort, k)
            return faiss.SearchParametersHNSW(efSearch=effort, **options)
        if self.kind == IVF:
            effort = self._index.nlist if thorough else self.effort
            return faiss.SearchParametersIVF(nprobe=effort, **options)
        return faiss.SearchParameters(**options) if options else None


def _trained_cells(faiss: Any, vectors: Float[np.ndarray, "n E"]) -> Any:
    """An IVF index without vectors, of about 4 √n cells with centres of unit length."""
    count, dim = vectors.shape
    cells = max(1, min(int(4 * count**0.5), count // TRAINED_ON))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = 0, ROUNDS
    chosen = np.random.default_rng(0).permutation(count)[: TRAINED_ON * cells]
    index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
    return index
