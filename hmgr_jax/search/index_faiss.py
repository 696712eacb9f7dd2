"""FAISS in this process: exact search (flat), a graph (HNSW) or cells (IVF) of vectors.

Scores are recomputed from the vectors, so that equal vectors have equal scores in any position.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.search.index_engine import FLAT, HNSW, IVF, NOBODY, Engine, are_numbers
from hmgr_jax.shapes import Float, Int

FILE = "vectors.faiss"
LINKS = 16
"""HNSW: neighbours of a node (M)."""
CONSTRUCTION = 64
"""HNSW: candidates for these neighbours (efConstruction)."""
EFFORT = {HNSW: 64, IVF: 16}
"""Initial effort of `tune`: candidates of a search in HNSW (efSearch), cells searched by IVF."""
MOST_CANDIDATES = 4096
"""HNSW: maximum number of candidates; with more, flat search is faster."""
TRAINED_ON, ROUNDS = 39, 10
"""IVF: training vectors per cell (the fewest that FAISS accepts without a warning), and rounds of
k-means (more take minutes for a million vectors and do not improve recall)."""
ROUND = 2**24
"""Number of values of the vectors whose scores are recomputed at once."""
SAMPLE, WANTED = 100, 0.95
"""Number of queries of `tune`, and its target for recall@10."""
BLOCK = 1 << 16
"""Vectors that `nearest` compares at once."""
NEAR = 1e-5
"""Scores that differ by less than this share of the best one are equal to `measure_recall`."""


def import_faiss() -> Any:
    """The package faiss; a UserError names the extra that installs it."""
    try:
        import faiss
    except ImportError:
        raise UserError(
            "FAISS, which searches indices, is not installed: run pip install 'hmgr-jax[index]'."
        ) from None
    return faiss


class FaissEngine:
    """One FAISS index; the number of a vector is its position."""

    def __init__(self, kind: str, index: Any, deleted: Int[np.ndarray, " n"] | None = None) -> None:
        self._faiss = import_faiss()
        self.kind, self._index = kind, index
        self.effort = EFFORT.get(kind, 0)
        self._deleted = np.zeros(0, np.int64) if deleted is None else deleted

    @classmethod
    def build(cls, kind: str, vectors: Float[np.ndarray, "n E"]) -> FaissEngine:
        """An engine of ``kind`` that holds ``vectors``."""
        faiss = import_faiss()
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
    def read(cls, folder: Path, about: dict[str, Any], count: int, dim: int) -> FaissEngine:
        """The engine that `write` wrote, with ``about`` what it returned.

        Args:
            folder: the folder of the index.
            about: what `write` returned.
            count: number of vectors, also deleted ones.
            dim: their dimension.

        Raises:
            UserError: FAISS cannot read the file, or it holds other vectors.
        """
        faiss = import_faiss()
        classes = {FLAT: "IndexFlat", HNSW: "IndexHNSWFlat", IVF: "IndexIVFFlat"}
        kind, effort, deleted = (about.get(name) for name in ("kind", "effort", "deleted"))
        if kind not in classes or type(effort) is not int or not are_numbers(deleted, count):
            raise UserError(f"{folder} has no valid description of its engine ({about!r:.60})")
        index, path = _read_index(faiss, folder / FILE), folder / FILE
        metric = index.metric_type == faiss.METRIC_INNER_PRODUCT
        if not isinstance(index, getattr(faiss, classes[kind])) or not metric:
            raise UserError(f"{path} holds a {type(index).__name__}, not {kind} by inner product")
        if (index.ntotal, index.d) != (count, dim):
            raise UserError(
                f"{path} holds {index.ntotal} vectors of dimension {index.d}, not {count} of {dim}"
            )
        engine = cls(kind, index, np.asarray(deleted, np.int64))
        engine.effort = effort
        if kind == IVF:
            index.make_direct_map()
        return engine

    @property
    def exact(self) -> bool:
        """Whether every vector is compared, as in flat."""
        return self.kind == FLAT

    @property
    def dim(self) -> int:
        """E, the dimension of the vectors."""
        return self._index.d

    def __len__(self) -> int:
        return self._index.ntotal

    def add(self, vectors: Float[np.ndarray, "n E"]) -> None:
        """Add vectors with the next numbers."""
        self._index.add(vectors)
        if self.kind == IVF:
            self._index.make_direct_map()

    def delete(self, numbers: Int[np.ndarray, " n"]) -> None:
        """Exclude vectors from searches; HNSW cannot remove nodes from its graph."""
        self._deleted = np.union1d(self._deleted, numbers)

    def search(
        self, queries: Float[np.ndarray, "q E"], k: int, *, thorough: bool = False
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The best ``k``; a ``thorough`` search visits every cell or node."""
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
        """Write one file; deleted vectors stay in it."""
        with (folder / FILE).open("wb") as file:  # FAISS itself does not notice a full disk
            self._faiss.write_index(self._index, self._faiss.PyCallbackIOWriter(file.write))
        return {"kind": self.kind, "effort": self.effort, "deleted": self._deleted.tolist()}

    def close(self) -> None:
        """Do nothing, since no file is open."""

    def most_effort(self) -> int:
        """The largest useful effort."""
        return self._index.nlist if self.kind == IVF else min(len(self), MOST_CANDIDATES)

    def _parameters(self, k: int, thorough: bool) -> Any:
        faiss, options = self._faiss, {}
        if len(self._deleted):
            # The keyword arguments keep the Python objects alive that the parameters point into.
            options["sel"] = faiss.IDSelectorNot(faiss.IDSelectorBatch(self._deleted))
        if self.kind == HNSW:
            effort = len(self) if thorough else max(self.effort, k)
            return faiss.SearchParametersHNSW(efSearch=effort, **options)
        if self.kind == IVF:
            effort = self._index.nlist if thorough else self.effort
            return faiss.SearchParametersIVF(nprobe=effort, **options)
        return faiss.SearchParameters(**options) if options else None


def _read_index(faiss: Any, path: Path) -> Any:
    """FAISS's index in a file; arrays that are larger than the file are refused, not allocated."""
    limits = [f"deserialization_{name}_limit" for name in ("vector_byte", "loop")]
    limits = [name for name in limits if hasattr(faiss, f"set_{name}")]  # of newer versions
    former = {name: getattr(faiss, f"get_{name}")() for name in limits}
    try:
        for name in limits:
            getattr(faiss, f"set_{name}")(path.stat().st_size)
        return faiss.read_index(str(path))
    except (OSError, RuntimeError, MemoryError, ValueError) as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise UserError(f"{path} is not a FAISS index ({reason})") from None
    finally:
        for name, value in former.items():
            getattr(faiss, f"set_{name}")(value)


def _trained_cells(faiss: Any, vectors: Float[np.ndarray, "n E"]) -> Any:
    """A trained IVF index without vectors, with about 4 √n cells."""
    count, dim = vectors.shape
    cells = max(1, min(int(4 * count**0.5), count // TRAINED_ON))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = 0, ROUNDS
    chosen = np.random.default_rng(0).permutation(count)[: TRAINED_ON * cells]
    index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
    return index


def measure_recall(
    engine: Engine,
    queries: Float[np.ndarray, "q E"],
    numbers: Int[np.ndarray, " n"],
    vectors: Float[np.ndarray, "n E"],
    k: int = 10,
) -> float:
    """Share of the true best ``k`` of every query that ``engine`` finds, 0 to 1.

    A found item counts if it scores no less than the true k-th, since of equal items any may be
    among the best.

    Args:
        engine: holds ``vectors``.
        queries: [q, E].
        numbers: the numbers of ``vectors``.
        vectors: all that can be found.
        k: number of neighbours, at most n.
    """
    k = min(k, len(numbers))
    found, scores = engine.search(queries, k)
    return _share(found, scores, _floors(queries, vectors, k), k)


def nearest(
    queries: Float[np.ndarray, "q E"], vectors: Float[np.ndarray, "n E"], k: int
) -> Int[np.ndarray, "q k"]:
    """Rows of the best ``k`` vectors of every query, by exhaustive search."""
    rows: np.ndarray = np.zeros((len(queries), 0), np.int64)
    scores: np.ndarray = np.zeros((len(queries), 0), np.float32)
    for first in range(0, len(vectors), BLOCK):
        found = queries @ vectors[first : first + BLOCK].T
        places = np.broadcast_to(np.arange(first, first + found.shape[1]), found.shape)
        rows, scores = np.hstack([rows, places]), np.hstack([scores, found])
        if rows.shape[1] > k:
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            rows, scores = (np.take_along_axis(x, best, axis=1) for x in (rows, scores))
    return rows


def tune(engine: FaissEngine, vectors: Float[np.ndarray, "n E"]) -> dict[str, Any]:
    """Double the engine's effort until it finds `WANTED` of the true ten nearest.

    The queries are `SAMPLE` of ``vectors``, whose numbers start at 0; each query is excluded from
    its own result.
    """
    chosen = np.random.default_rng(0).permutation(len(vectors))[:SAMPLE]
    k = min(10, len(vectors) - 1)
    floors = _floors(vectors[chosen], vectors, k, chosen)
    while True:
        found, scores = engine.search(vectors[chosen], k + 1)
        recall = _share(np.where(found == chosen[:, None], NOBODY, found), scores, floors, k)
        if recall >= WANTED or engine.effort >= engine.most_effort():
            return {"effort": engine.effort, "recall@10": round(recall, 4)}
        engine.effort = min(2 * engine.effort, engine.most_effort())


def _floors(
    queries: Float[np.ndarray, "q E"],
    vectors: Float[np.ndarray, "n E"],
    k: int,
    itself: Int[np.ndarray, " q"] | None = None,
) -> Float[np.ndarray, "q 1"]:
    """What the best ``k`` of each query score at least: the true k-th score, less `NEAR`.

    ``itself`` are the rows of the queries where they are among the vectors; they do not count.
    """
    rows = nearest(queries, vectors, k if itself is None else k + 1)
    scores = np.einsum("qe,qke->qk", queries, vectors[rows], dtype=np.float64)
    near = NEAR * np.abs(scores).max(axis=1, keepdims=True)
    if itself is not None:
        scores[rows == itself[:, None]] = -np.inf
    return np.sort(scores, axis=1)[:, ::-1][:, k - 1 : k] - near


def _share(found: np.ndarray, scores: np.ndarray, floors: np.ndarray, k: int) -> float:
    """Share of ``k`` wanted items a query that are found [q, some] and reach its floor [q, 1]."""
    right = ((found != NOBODY) & (scores >= floors)).sum(axis=1)
    return float(np.minimum(right, k).mean() / k) if k else 1.0
