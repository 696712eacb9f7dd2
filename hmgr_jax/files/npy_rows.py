"""Rows of a large ``.npy`` file, read on demand without a memory map."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hmgr_jax.errors import FoundNonFinite, UserError, reason
from hmgr_jax.files.arrays import read_header

_MOST_BYTES = 1 << 30  # the kernel moves at most 2 GiB in one call


class Rows(Protocol):
    """An array on disk, one row per image, in any format."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self.row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Read ``rows`` (int [k], any order, repeats allowed) into a fresh array [k, ...]."""
        ...

    def spot(self, row: int) -> str:
        """Name a row in a message."""
        ...

    def paths(self) -> list[Path]:
        """The files that hold the rows."""
        ...


class NpyRows(Rows):
    """An array on disk whose rows (first axis) are gathered with ``os.preadv``.

    Rows are converted from ``stored``, the type of the file, to ``dtype``, see `computed_dtype`. A
    memory map would be as fast, but its pages count as the process's memory. The file is held open,
    so that replacing it changes nothing, and read at explicit offsets, so that threads share one
    handle; a pickle holds only the path. Raises ``UserError`` for a file that is missing,
    truncated, in Fortran order, or holds objects.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._fd, header, self._offset = _open(self.path)
        weakref.finalize(self, os.close, self._fd)
        _check(self.path, header, self._offset + header.nbytes, os.fstat(self._fd).st_size)
        self.shape, _, self.stored = header
        self.dtype = computed_dtype(self.stored)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def spot(self, row: int) -> str:
        """Name a row in a message."""
        return f"row {row} (counted from 0)"

    def paths(self) -> list[Path]:
        """The file."""
        return [self.path]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Read ``rows`` (int [k], any order, repeats allowed) into a fresh array [k, ...].

        Runs of consecutive rows are read in one call. Raises ``IndexError`` for a row outside the
        array, ``UserError`` where the file has become shorter since it was opened.
        """
        rows = np.asarray(rows, dtype=np.int64).reshape(-1)
        out = np.empty((len(rows), *self.shape[1:]), self.stored)
        if not out.size:
            return out.astype(self.dtype)
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows of {self.path} go from 0 to {len(self) - 1}")
        starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
        ends = np.append(starts[1:], len(rows))
        view = out.reshape(-1).view(np.uint8).data
        size = out.nbytes // len(rows)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            self._read(view[start * size : end * size], self._offset + int(rows[start]) * size)
        return computed(out)

    def _read(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from byte ``offset`` of the file."""
        done = 0
        while done < len(buffer):
            got = os.preadv(self._fd, [buffer[done : done + _MOST_BYTES]], offset + done)
            if got == 0:
                raise UserError(
                    f"{self.path} ended at byte {offset + done} while it was read: it was "
                    "shortened after it was opened, so put it back whole."
                )
            done += got


LARGEST = np.float32(2**50)
"""Largest magnitude of a feature. The norm of larger ones overflows in float32 (of 1e20), or loses
what tells them apart."""


def check_features(values: np.ndarray, where: Callable[[int], str], advice: str) -> None:
    """Check float features [n, ...].

    Raises:
        FoundNonFinite: a row holds NaN or infinity; the message is ``where(row) holds ...``.
        UserError: a row holds a number above `LARGEST`.
    """
    # A comparison with NaN is false.
    bad = np.flatnonzero(~(np.abs(values) <= LARGEST).reshape(len(values), -1).all(axis=1))
    if not len(bad):
        return
    row = int(bad[0])
    largest = float(np.abs(values[row]).max())
    if not np.isfinite(largest):
        raise FoundNonFinite(f"{where(row)} holds NaN or infinity: {advice}")
    raise UserError(
        f"{where(row)} holds a number of {largest:.3g}, whose square does not fit into float32 "
        f"(at most {LARGEST:.3g}): divide all features by a constant."
    )


def computed_dtype(stored: np.dtype) -> np.dtype:
    """``stored`` in the byte order of the machine; float32 for wider floats."""
    wide = stored.kind == "f" and stored.itemsize > 4
    return np.dtype(np.float32) if wide else stored.newbyteorder("=")


def computed(values: np.ndarray) -> np.ndarray:
    """Convert to `computed_dtype`; a value beyond float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(computed_dtype(values.dtype), copy=False)


def _open(path: Path) -> tuple[int, Header, int]:
    """A descriptor, the header and the offset of the first row, all of one file.

    While a file is replaced, a path opened twice may be two files.
    """
    try:
        with path.open("rb") as file:
            header = read_header(file)
            return os.dup(file.fileno()), header, file.tell()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a .npy file.") from None
    except ValueError as error:
        raise UserError(
            f"{path} does not begin with a .npy header ({reason(error)}): write it with numpy.save."
        ) from None


def _check(path: Path, header: Header, wanted: int, found: int) -> None:
    """Raise `UserError` for no plain rows, or ``found`` bytes where ``wanted`` are promised."""
    shape, fortran, dtype = header
    if dtype.hasobject:
        raise UserError(f"{path} holds pickled objects: save it as an array of plain numbers.")
    if fortran:
        raise UserError(
            f"{path} is in Fortran order: save numpy.ascontiguousarray of it with numpy.save."
        )
    if not shape:
        raise UserError(f"{path} holds a single number where rows were expected.")
    if found < wanted:
        raise UserError(
            f"{path} is truncated: its header promises {wanted} bytes for shape {shape}, "
            f"the file has {found}, so copy or extract it again."
        )
