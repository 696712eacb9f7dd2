"""Vectors in Milvus: Milvus Lite on this machine, or a server or cluster by its address.

Milvus Lite runs in threads of this process on a folder. A loaded index uses a temporary copy of
the saved folder. On a server, a saved index is the name of a collection, and later additions and
deletions change that collection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.search.index_engine import NOBODY
from hmgr_jax.shapes import Float, Int

FOLDER = "milvus.db"
TOKEN = "MILVUS_TOKEN"
"""Environment variable with ``user:password`` or the token of a server; it is never saved."""
MOST = 16_384
"""Milvus's limit of results per query."""
SECONDS = 20.0
"""Timeout of a server in seconds."""
BLOCK_BYTES = 8 << 20
"""Bytes per request."""
EXACT_UP_TO = 500_000
"""Largest number of vectors of an exact collection; a larger one is a graph (HNSW)."""


def import_milvus(lite: bool) -> Any:
    """The package pymilvus; a UserError names the extra that installs it."""
    try:
        import pymilvus

        if lite:
            import milvus_lite  # noqa: F401
    except ImportError:
        raise UserError(
            "pymilvus and milvus-lite, which Milvus needs, are not installed: run pip install "
            "'hmgr-jax[milvus]'."
        ) from None
    # pymilvus logs every error that it raises, with a traceback.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return pymilvus


class MilvusEngine:
    """A collection of Milvus; the numbers of vectors are primary keys."""

    def __init__(self, uri: str | None, about: dict[str, Any], copy_of: Path | None) -> None:
        self._milvus, self._uri, self._about = import_milvus(uri is None), uri, dict(about)
        if uri is None:
            own = tempfile.mkdtemp(prefix="hmgr-jax-milvus-")
            self._where = str(Path(own, FOLDER))
            if copy_of is not None:
                shutil.copytree(copy_of, self._where)
        else:
            self._where = uri
        # Runs at the end of this process at the latest.
        self.close = weakref.finalize(self, _shut_down, self._where if uri is None else None)
        self._client = self._connect()

    @classmethod
    def build(cls, vectors: Float[np.ndarray, "n E"], uri: str | None) -> MilvusEngine:
        """A new collection with ``vectors`` in it.

        Raises:
            UserError: pymilvus is missing, or no server answers at ``uri``.
        """
        kind = "FLAT" if len(vectors) <= EXACT_UP_TO else "HNSW"
        name = f"hmgr_jax_{uuid.uuid4().hex[:12]}"
        engine = cls(uri, {"collection": name, "kind": kind, "next": 0}, None)
        engine._create(vectors.shape[1])
        engine.add(vectors)
        return engine

    @classmethod
    def read(cls, folder: Path, about: dict[str, Any]) -> MilvusEngine:
        """The engine that `write` wrote.

        Raises:
            UserError: the server does not answer, or it holds no such collection.
        """
        engine = cls(about["uri"], about, None if about["uri"] else folder / FOLDER)
        with engine._milvus_errors():
            if not engine._client.has_collection(engine._name):
                raise UserError(
                    f"Milvus at {engine._where} holds no collection {engine._name}: build the "
                    "index again."
                )
            engine._client.load_collection(engine._name)
        return engine

    @property
    def uri(self) -> str | None:
        """The address of the server; None for Milvus Lite."""
        return self._uri

    @property
    def exact(self) -> bool:
        """Whether the collection compares all vectors."""
        return self._about["kind"] == "FLAT"

    def __len__(self) -> int:
        with self._milvus_errors():
            found = self._client.query(self._name, filter="", output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def add(self, vectors: Float[np.ndarray, "n E"]) -> None:
        """Insert in blocks."""
        first = self._about["next"]
        block = max(1, BLOCK_BYTES // (4 * vectors.shape[1]))
        with self._milvus_errors():
            for start in range(0, len(vectors), block):
                rows = [
                    {"number": first + start + place, "vector": vector}
                    for place, vector in enumerate(vectors[start : start + block])
                ]
                self._client.insert(self._name, rows)
        self._about["next"] = first + len(vectors)

    def delete(self, numbers: Int[np.ndarray, " n"]) -> None:
        """Delete by primary key."""
        with self._milvus_errors():
            self._client.delete(self._name, ids=numbers.tolist())

    def search(
        self, queries: Float[np.ndarray, "q E"], k: int, *, thorough: bool = False
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The best ``k`` with Milvus's own scores; a ``thorough`` HNSW has the largest effort.

        Raises:
            UserError: ``k`` is above the limit of Milvus, or Milvus does not answer.
        """
        if k > MOST:
            raise UserError(f"Milvus finds at most {MOST} results per query, got {k}: lower k.")
        options = {} if self.exact else {"ef": MOST if thorough else max(64, 2 * k)}
        with self._milvus_errors():
            found = self._client.search(
                self._name,
                data=list(queries),
                limit=k,
                search_params={"metric_type": "IP", "params": options},
            )
        numbers = np.full((len(queries), k), NOBODY, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for row, hits in enumerate(found):
            numbers[row, : len(hits)] = [hit["number"] for hit in hits]
            scores[row, : len(hits)] = [hit["distance"] for hit in hits]
        return numbers, scores

    def vectors(self, numbers: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n E"]:
        """The vectors of these numbers."""
        block = min(MOST, max(1, BLOCK_BYTES // (4 * self._about["dim"])))
        parts = []
        with self._milvus_errors():
            for start in range(0, len(numbers), block):
                wanted = [int(number) for number in numbers[start : start + block]]
                rows = self._client.get(self._name, ids=wanted, output_fields=["vector"])
                found = {row["number"]: row["vector"] for row in rows}
                parts.append(np.asarray([found[number] for number in wanted], np.float32))
        return np.concatenate(parts)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the folder of Milvus Lite in its closed state, or return the server's address."""
        with self._milvus_errors():
            self._client.flush(self._name)
        if self._uri is None:
            self._client.close()
            _stop(self._where)
            shutil.copytree(self._where, folder / FOLDER)
            self._client = self._connect()
            self._client.load_collection(self._name)
        return {**self._about, "uri": self._uri}

    @property
    def _name(self) -> str:
        return self._about["collection"]

    def _connect(self) -> Any:
        token = os.environ.get(TOKEN, "") if self._uri else ""
        with self._milvus_errors():
            return self._milvus.MilvusClient(self._where, token=token, timeout=SECONDS)

    def _create(self, dim: int) -> None:
        milvus, self._about["dim"] = self._milvus, dim
        schema = milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("number", milvus.DataType.INT64, is_primary=True)
        schema.add_field("vector", milvus.DataType.FLOAT_VECTOR, dim=dim)
        index = milvus.MilvusClient.prepare_index_params()
        options = {} if self.exact else {"M": 16, "efConstruction": 64}
        index.add_index("vector", index_type=self._about["kind"], metric_type="IP", params=options)
        with self._milvus_errors():
            self._client.create_collection(
                self._name, schema=schema, index_params=index, consistency_level="Strong"
            )

    @contextlib.contextmanager
    def _milvus_errors(self) -> Iterator[None]:
        """Turn errors of Milvus, such as an unreachable or full server, into UserErrors."""
        try:
            yield
        except self._milvus.MilvusException as error:
            reason = str(getattr(error, "message", "") or error).split("\n")[0]
            raise UserError(
                f"Milvus at {self._where} failed ({reason}): start it, or correct the address "
                f"and the token in {TOKEN}."
            ) from None


def _stop(where: str) -> None:
    """Stop the threads of Milvus Lite on a folder, so that the folder is complete."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(where)


def _shut_down(where: str | None) -> None:
    """Stop Milvus Lite and remove its temporary folder; a server keeps running."""
    if where is None:
        return
    _stop(where)
    shutil.rmtree(Path(where).parent, ignore_errors=True)
