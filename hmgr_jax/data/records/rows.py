"""Features of a TFDS dataset in ArrayRecord files, gathered like the rows of a ``.npy`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hmgr_jax.data.records.array_files import ArrayRecords, Shard
from hmgr_jax.data.records.features import DESCRIPTIONS, FEATURES, ID, stored, stored_raw
from hmgr_jax.data.records.wire import locate
from hmgr_jax.errors import UserError

_NAME = FEATURES.encode()


class RecordRows:
    """The ``features`` [R, D] of every record of a split (see `hmgr_jax.files.npy_rows.NpyRows`).

    ``split`` is any split of TFDS: ``train``, ``train[:90%]``. Values that were stored as they lie
    in memory (``encoding="bytes"``) are copied straight out of a record; other encodings go through
    TFDS, several times slower. Picklable; threads share it.

    Raises ``UserError`` for a file that is missing, damaged or cut short.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        self.path, self.split = Path(builder.data_dir), split
        instructions = builder.info.splits[split].file_instructions
        self.records = ArrayRecords(
            [
                Shard(Path(one.filename), one.skip, one.take, one.examples_in_shard)
                for one in instructions
            ]
        )
        feature = builder.info.features[FEATURES]
        self.shape = (len(self.records), *feature.shape)
        self.dtype = np.dtype(feature.np_dtype)
        self._direct = stored_raw(feature)
        self._decoder: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_decoder": None}

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self.row_bytes

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        return f"{self.path} ({self.split})"

    def paths(self) -> list[Path]:
        """The files that hold the rows."""
        return [*self.records.paths, *(self.path / name for name in DESCRIPTIONS)]

    def spot(self, row: int) -> str:
        """What a person calls a row: its file, its record and its id."""
        path, record = self.records.place(row)
        ((_, found),) = self.records.read(np.array([row]), self.row_bytes)
        (name,) = stored(found, ID)
        name = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        return f"record {record} (counted from 0) of {path.name}, id {name}"

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Read ``rows`` (int [k], any order, repeats allowed) into a fresh array [k, R, D]."""
        rows = np.asarray(rows, np.int64).reshape(-1)
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for k, record in self.records.read(rows, self.row_bytes):
            out[k] = self._values(record, int(rows[k]))
        return out

    def _values(self, record: bytes, row: int) -> np.ndarray:
        if not self._direct:
            return self._decode(record)
        at, size = locate(record, _NAME) or (0, 0)
        if size != self.row_bytes:
            path, number = self.records.place(row)
            raise UserError(
                f"{path} holds in record {number} (counted from 0) no {FEATURES} of "
                f"{self.row_bytes} bytes as features.json says: prepare the data again."
            )
        count = size // self.dtype.itemsize
        return np.frombuffer(record, self.dtype, count, at).reshape(self.shape[1:])

    def _decode(self, record: bytes) -> np.ndarray:
        if self._decoder is None:
            features = tfds.builder_from_directory(self.path).info.features
            self._decoder = tfds.features.FeaturesDict({FEATURES: features[FEATURES]})
        return self._decoder.deserialize_example_np(record)[FEATURES]
