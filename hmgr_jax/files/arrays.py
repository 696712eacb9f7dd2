"""Arrays of ``.npy`` and ``.npz`` files, whose headers are checked before anything is read."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import check_packed, readable

AXES = 32
"""Most axes of an array."""
ONLY = "arr_0"
"""The name of the array of a ``.npy``, and of the first without a name in an ``.npz``."""
WHAT = ".npy or .npz"


class Header(NamedTuple):
    """The header of a ``.npy``."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> Header:
    """The header of the ``.npy`` at the position of ``file``.

    Raises:
        ValueError: there is none, it is of a version that numpy uses for objects only, or it
            describes no possible array.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # numpy evaluates the text of the header
        raise ValueError(f"the header of the array is damaged: {error}") from None
    if len(shape) > AXES or not all(type(n) is int and 0 <= n < 2**62 for n in shape):
        raise ValueError(f"the array is of no possible shape, {str(shape)[:60]}")
    return Header(tuple(shape), bool(fortran), dtype)


class Stored:
    """An array of an open file: ``shape`` and ``dtype``; ``numpy.asarray`` reads it."""

    def __init__(self, header: Header, read: Any) -> None:
        self.shape, _, self.dtype = header
        self._read = read

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found: np.ndarray = self._read()
        return found if dtype is None else found.astype(dtype)


@contextlib.contextmanager
def open_arrays(path: Path, advice: str) -> Iterator[dict[str, Stored]]:
    """Open the arrays of an ``.npz`` by name, or that of a ``.npy`` as `ONLY`.

    Arrays of objects are listed, and raise when they are read.

    Raises:
        UserError: the file is missing, damaged, or an array that is read takes memory out of
            proportion to the file; the sentence ends with ``advice``.
    """
    with contextlib.ExitStack() as stack:
        with readable(path, WHAT, advice):
            file = stack.enter_context(path.open("rb"))
            size = os.fstat(file.fileno()).st_size
            if file.read(2) == b"PK":
                archive = stack.enter_context(zipfile.ZipFile(file))
                members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
                found = {m.filename[:-4]: _member(archive, m, path, advice) for m in members}
            else:
                file.seek(0)
                header = read_header(file)
                found = {ONLY: Stored(header, lambda: _whole(file, size, path, advice))}
        yield found


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, advice: str) -> Stored:
    with archive.open(info) as member:
        header = read_header(member)
        begins = member.tell()

    def read() -> np.ndarray:
        with readable(f"{path}, {info.filename[:-4]},", WHAT, advice):
            _check(header, info.file_size - begins)
            check_packed(header.nbytes, info.compress_size, "the array")
            with archive.open(info) as member:
                return np.lib.format.read_array(member, allow_pickle=False)

    return Stored(header, read)


def _whole(file: IO[bytes], size: int, path: Path, advice: str) -> np.ndarray:
    with readable(path, WHAT, advice):
        file.seek(0)
        _check(read_header(file), size - file.tell())
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def _check(header: Header, there: int) -> None:
    if header.dtype.hasobject:
        raise ValueError("it holds pickled objects, which are not read")
    if header.nbytes > there:
        raise ValueError(f"it is cut short: {there:,} bytes where {header.nbytes:,} were expected")


def read_npy(path: Path, advice: str) -> np.ndarray:
    """Read the array of a ``.npy``; raises as `open_arrays`."""
    with open_arrays(path, advice) as arrays:
        if list(arrays) != [ONLY]:
            raise UserError(f"{path} is an .npz where a .npy was expected: {advice}")
        return np.asarray(arrays[ONLY])


def read_npz(path: Path, advice: str, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz``, or those of ``names``; raises as `open_arrays`."""
    with open_arrays(path, advice) as arrays:
        check_names(arrays, names or (), path, advice)
        return {name: np.asarray(arrays[name]) for name in (names or arrays)}


def check_names(
    arrays: Mapping[str, object], names: Sequence[str], path: Path, advice: str
) -> None:
    """Raise `UserError` if one of ``names`` is not among ``arrays``."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(
            f"{path} holds {', '.join(arrays) or 'nothing'} where {', '.join(names)} were "
            f"expected: {advice}"
        )
