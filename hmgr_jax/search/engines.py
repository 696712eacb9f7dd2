"""Which engine an index has: NumPy or FAISS in this process, or Milvus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.search import index_files, index_numpy
from hmgr_jax.search.index_engine import ENGINES, FLAT, HNSW, IVF, MILVUS, Engine
from hmgr_jax.search.index_faiss import FaissEngine, import_faiss, tune
from hmgr_jax.search.index_numpy import NumpyEngine
from hmgr_jax.shapes import Float

FLAT_UP_TO = 500_000
"""Largest number of vectors of a flat index by default; a larger index is IVF."""


def check_engine(engine: str, uri: str | None = None) -> None:
    """Check that an engine exists and that its package is installed.

    Raises:
        UserError: it does not, or ``uri`` is given for another engine than Milvus.
    """
    if engine not in ENGINES:
        raise UserError(f"There is no engine {engine!r}: choose from {', '.join(ENGINES)}.")
    if uri is not None and engine != MILVUS:
        raise UserError(f"uri is for engine milvus, but the engine is {engine}.")
    if engine == MILVUS:
        from hmgr_jax.search.index_milvus import import_milvus

        import_milvus(uri is None)
    elif engine in (HNSW, IVF):
        import_faiss()


def build_engine(
    vectors: Float[np.ndarray, "n E"], engine: str | None, uri: str | None
) -> tuple[Engine, dict[str, Any]]:
    """An engine with ``vectors``, and its name and recall; see `Index.build` and `check_engine`."""
    name = engine or (FLAT if len(vectors) <= FLAT_UP_TO else IVF)
    check_engine(name, uri)
    about = {"engine": name}
    if name == MILVUS:
        from hmgr_jax.search.index_milvus import MilvusEngine

        return MilvusEngine.build(vectors, uri), about
    if name == FLAT and len(vectors) < index_numpy.BELOW:
        return NumpyEngine(vectors), about
    built = FaissEngine.build(name, vectors)
    return built, about if built.exact else about | tune(built, vectors)


def read_engine(folder: Path, found: index_files.Found) -> Engine:
    """The engine of a saved index.

    Raises:
        UserError: its files are damaged, or its package is missing.
    """
    if found.about["engine"] == MILVUS:
        from hmgr_jax.search.index_milvus import MilvusEngine

        return MilvusEngine.read(folder, found.engine)
    given = folder, found.engine, len(found.items), found.about["dim"]
    small = found.engine.get("kind") == index_numpy.KIND
    read: Any = NumpyEngine.read if small else FaissEngine.read
    return index_files.read_part(folder, lambda: read(*given))
