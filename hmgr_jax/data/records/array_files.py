"""Random access to the raw records of ArrayRecord files, with detection of damage."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.errors import UserError

# Without read-ahead only the wanted records are read. Reading more at a time takes fresh pages from
# the system for every batch, at three times the cost of reading.
_TOGETHER_BYTES = 1 << 20
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_BUFFER_BYTES = 1 << 15


class Shard(NamedTuple):
    """Consecutive records of one file."""

    path: Path
    first: int
    take: int
    holds: int
    """Records of the whole file, according to its description."""


class ArrayRecords:
    """The records of several files, concatenated and numbered from 0.

    Each process opens a file when it first reads from it; threads share the reader; a pickle holds
    only names. Raises ``UserError`` for a file that is missing, cut short, or does not hold
    ``Shard.holds`` records: ArrayRecord itself reads such a file as empty.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self._ends = np.cumsum([shard.take for shard in self.shards], dtype=np.int64)
        self._begin()
        for shard in self.shards:
            _open(shard).close()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[tuple[int, int], Any] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def paths(self) -> list[Path]:
        """The files, each once."""
        return list(dict.fromkeys(shard.path for shard in self.shards))

    def read(self, rows: np.ndarray, size: int) -> Iterator[tuple[int, bytes]]:
        """Yield (place in ``rows``, record) of ``rows`` (int [k], any order, repeats allowed).

        Records come file by file, a few at a time; release one before the next. ``size`` is about
        that of a record in bytes. Raises ``IndexError`` for a row out of range, ``UserError`` with
        file and record for damage.
        """
        rows = np.asarray(rows, np.int64).reshape(-1)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"records go from 0 to {len(self) - 1}")
        of = np.searchsorted(self._ends, rows, side="right")
        step = max(1, _TOGETHER_BYTES // max(1, size))
        for number in np.unique(of).tolist():
            wanted = np.flatnonzero(of == number)
            for start in range(0, len(wanted), step):
                some = wanted[start : start + step]
                inside = self._inside(number, rows[some])
                yield from zip(some.tolist(), self._read(number, inside), strict=True)

    def place(self, row: int) -> tuple[Path, int]:
        """File of a record, and its index in that file."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self.shards[number].path, self._inside(number, np.array([row]))[0]

    def _inside(self, number: int, rows: np.ndarray) -> list[int]:
        shard = self.shards[number]
        return (rows - (int(self._ends[number]) - shard.take) + shard.first).tolist()

    def _read(self, number: int, inside: list[int]) -> Sequence[bytes]:
        """Read records of one file; on an error read them one by one to find the damaged one."""
        reader = self._reader(number)
        try:
            records = reader.read(inside)
            if all(records):  # records cut off under an open reader are empty
                return records
        except RuntimeError:
            pass
        return [_read_one(reader, self.shards[number].path, record) for record in inside]

    def _reader(self, number: int) -> Any:
        key = os.getpid(), number  # a reader does not outlive a fork
        with self._lock:
            if key not in self._readers:
                self._readers[key] = _open(self.shards[number])
            return self._readers[key]


def _read_one(reader: Any, path: Path, record: int) -> bytes:
    why = "it ends before"
    try:
        if found := reader.read([record])[0]:
            return found
    except RuntimeError as error:
        why = " ".join(str(error).split())[:120]
    raise UserError(
        f"{path} is damaged at record {record} (counted from 0; {why}): copy the file again or "
        "prepare the data again."
    )


def _open(shard: Shard) -> Any:
    """Open a reader, and check the number of records."""
    from array_record.python.array_record_module import ArrayRecordReader

    path = shard.path
    if not path.is_file():
        raise UserError(f"{path} is missing: copy it again or prepare the data again.")
    reader = ArrayRecordReader(str(path), options=_OPTIONS, file_reader_buffer_size=_BUFFER_BYTES)
    found = reader.num_records() if reader.ok() else None
    if found == shard.holds:
        return reader
    what = "cannot be read" if found is None else f"holds {found} records"
    raise UserError(
        f"{path} ({path.stat().st_size} bytes) {what} where {shard.holds} records were expected: "
        "it is damaged or cut short, so copy it again or prepare the data again."
    )
