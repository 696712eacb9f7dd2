"""The array in a ``.pkl``, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.plain_pickle import Inert, load_pickle
from hmgr_jax.files.reading import readable

ADVICE = "give the pickles of ACMR's release, or store the array as .npy."


class _DType:
    """Stands for ``numpy.dtype``."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.dtype = np.dtype(name) if type(name) is str and len(name) < 16 else np.dtype(object)
        if self.dtype.kind not in "biufUS":
            raise ValueError(f"it holds an array of {self.dtype}")

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">", "|", "="):
            self.dtype = self.dtype.newbyteorder(state[1])


def _numbers(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    data = raw.encode("latin-1") if isinstance(raw, str) else raw
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


class _Array:
    """Stands for ``numpy.ndarray``, made empty and filled by its state."""

    values: np.ndarray | None = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.values = _numbers(raw, dtype, shape, "F" if fortran else "C")


class _FromBuffer:
    """Stands for the function that makes arrays of protocol 5."""

    __slots__ = ()

    def __call__(self, raw: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:
        found = _Array()
        found.values = _numbers(raw, dtype, shape, order)
        return found


class _Scalar:
    __slots__ = ()

    def __call__(self, dtype: Any, raw: Any) -> Any:
        return _numbers(raw, dtype, (), "C").item()


class _Encode:
    """Stands for ``codecs.encode``, by which Python 3 writes bytes for Python 2, as latin-1.

    The text is kept: one text handed to very many calls would be copied by each.
    """

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> Any:
        if type(text) is not str or encoding != "latin1":
            raise ValueError("it encodes something else than bytes")
        return text


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Inert,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Encode(),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _KNOWN[_module, "_reconstruct"] = _Array
    _KNOWN[_module, "scalar"] = _Scalar()
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    _KNOWN[_module, "_frombuffer"] = _FromBuffer()


def read_array_pickle(path: Path) -> np.ndarray:
    """Read the array of a ``.pkl`` of Python 2 or 3, as in ACMR's release.

    Lists of numbers, and lists of such lists or arrays, are arrays too.

    Raises:
        UserError: it holds something else, or is damaged.
    """
    with readable(path, "a pickle", ADVICE):
        data = path.read_bytes()
    found = load_pickle(data, str(path), _KNOWN, advice=ADVICE)
    array = None
    with readable(path, "a pickle of an array", ADVICE):
        array = _array(found, len(data))
    if array is None:
        raise UserError(
            f"{path} holds a {type(found).__name__} where one array of numbers was expected: "
            f"{ADVICE}"
        )
    return array


def _array(found: Any, size: int) -> np.ndarray | None:
    """The array in a pickle of ``size`` bytes; None if there is none."""
    if isinstance(found, _Array):
        return found.values
    if type(found) not in (list, tuple):
        return None
    rows: list[Any] = [row.values if isinstance(row, _Array) else row for row in found]
    lists: list[Any] = [row for row in rows if type(row) in (list, tuple)]
    plain = [x for row in lists for x in row] if sum(map(len, lists)) <= size else [None]
    plain += [row for row in rows if type(row) not in (list, tuple, np.ndarray)]
    if not all(type(x) in (int, float, bool, str) for x in plain):
        return None
    if sum(row.nbytes for row in rows if isinstance(row, np.ndarray)) > size:
        return None
    array = np.asarray(rows)
    return None if array.dtype == object else array
