"""``.npy`` files whose rows are written in any order, and the record of written rows."""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.files.reading import parse_json
from hmgr_jax.files.workdir import write_json_atomic
from hmgr_jax.preparation.plan import Array


class RowFile:
    """``[rows, *array.shape]`` on disk: opened if it exists with this size, else created.

    ``fresh`` tells whether it was begun, so that nothing of it counts as written.
    """

    def __init__(self, path: Path, rows: int, array: Array) -> None:
        self.array = array
        header = _header((rows, *array.shape), array.dtype)
        self._offset = len(header)
        size = self._offset + rows * array.row_bytes
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        there = os.fstat(self._fd).st_size == size
        self.fresh = not there or os.pread(self._fd, len(header), 0) != header
        if self.fresh:
            os.ftruncate(self._fd, 0)
            os.ftruncate(self._fd, size)
            _write(self._fd, memoryview(header), 0)

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write ``values`` [k, ...] at ``rows`` (int [k]); adjacent rows in one call."""
        values = np.ascontiguousarray(values, self.array.dtype)
        if values.shape != (len(rows), *self.array.shape):
            raise ValueError(f"{values.shape} given for {len(rows)} rows of {self.array.shape}")
        view = values.reshape(-1).view(np.uint8).data
        size = self.array.row_bytes
        starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
        ends = np.append(starts[1:], len(rows))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            at = self._offset + int(rows[start]) * size
            _write(self._fd, view[start * size : end * size], at)

    def sync(self) -> None:
        """Flush everything to the disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    buffer = io.BytesIO()
    described = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def _write(fd: int, data: memoryview, offset: int) -> None:
    """Write all of ``data``; one call may write less."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


PROGRESS = ".progress.json"
"""A hidden file, since a kill may leave it behind."""


class Written:
    """The rows of every split that are on disk; ``key`` names their preparation.

    ``begun`` is the start of its first attempt, in nanoseconds of the epoch. Raises ``UserError``
    if ``folder`` holds something else or another incomplete preparation.
    """

    def __init__(self, folder: Path, key: str, rows: Mapping[str, int]) -> None:
        self.path, self.key, self.begun = folder / PROGRESS, key, time.time_ns()
        self.done = {split: np.zeros(count, bool) for split, count in rows.items()}
        if self.path.is_file():
            self._read()
            return
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others:
            raise UserError(
                f"{folder} holds {others[0]} but no {PROGRESS}, so it is no preparation that could "
                "go on: move it away or give another --out."
            )
        self.save()

    def _read(self) -> None:
        advice = "remove it to begin anew, or give another --out."
        try:
            found = parse_json(self.path.read_text("utf-8"))
            if found["key"] != self.key:
                raise UserError(
                    f"{self.path.parent} is another preparation half done, or its sources or "
                    f"options have changed since: {advice}"
                )
            self.begun = int(found["begun"])
            for split, done in self.done.items():
                bits = np.frombuffer(base64.b64decode(found["written"][split]["bits"]), np.uint8)
                done[:] = np.unpackbits(bits, count=len(done)).astype(bool)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} is damaged ({error}): {advice}") from None

    def todo(self) -> dict[str, np.ndarray]:
        """{split: bool [rows]}, True for rows still to write."""
        return {split: ~done for split, done in self.done.items()}

    def count(self) -> int:
        """The number of written rows of all splits."""
        return sum(int(done.sum()) for done in self.done.values())

    def save(self) -> None:
        """Save the record; the rows must be on the disk already."""
        written = {
            split: {
                "rows": int(done.sum()),
                "of": len(done),
                "bits": base64.b64encode(np.packbits(done).tobytes()).decode(),
            }
            for split, done in self.done.items()
        }
        write_json_atomic(self.path, {"key": self.key, "begun": self.begun, "written": written})


_EXPONENT = np.uint16(0x7C00)


def to_half(values: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """Convert ``values`` [k, R, D] to float16; ``where(i)`` names the source of row i.

    Raises `FoundNonFinite` for NaN or infinity, `UserError` for numbers above 65,504.
    """
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(values, np.float16)
    # All bits of the exponent set: three times faster than isfinite.
    exponents = half.view(np.uint16) & _EXPONENT
    bad = np.flatnonzero((exponents == _EXPONENT).reshape(len(half), -1).any(axis=1))
    if not len(bad):
        return half
    check_extracted(values, where)
    first = int(bad[0])
    largest = float(np.abs(values[first]).max())
    raise UserError(
        f"{where(first)} holds {largest:.6g} where at most 65504 fits into float16: divide all "
        "features by a constant."
    )


def check_extracted(values: np.ndarray, where: Callable[[int], str]) -> None:
    """Raise `FoundNonFinite` for the first row of [k, ...] with NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise FoundNonFinite(
            f"{where(int(bad[0]))} holds NaN or infinity: extract the features of that image again."
        )
