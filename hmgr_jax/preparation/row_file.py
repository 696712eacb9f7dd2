"""A ``.npy`` file of known size whose rows are written in any order."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from hmgr_jax.preparation.plan import Array


class RowFile:
    """``[rows, *array.shape]`` on disk: opened if it is there and has the size, else begun.

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
        """Write ``values`` [k, ...] at ``rows`` (int [k]); neighbours go in one call."""
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
        """Return once everything written is on the disk."""
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
    """Write all of ``data``: one call may stop short."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)
