"""Pickles that hold one array, without running what else a pickle may hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError

_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_KNOWN = {(module, name) for module in _NUMPY for name in ("_reconstruct", "scalar")}
_KNOWN |= {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs")
        return super().find_class(module, name)


def read_array_pickle(path: Path) -> np.ndarray:
    """The array of a ``.pkl`` of Python 2 or 3, as ACMR's release has them.

    Raises:
        UserError: it holds something else.
    """
    with path.open("rb") as file:
        found = _ArrayUnpickler(file, encoding="latin-1").load()
    array = np.asarray(found)
    if array.dtype == object:
        raise UserError(
            f"{path} holds a {type(found).__name__} where one array of numbers was expected: give "
            "the pickles of ACMR's release, or store the array as .npy."
        )
    return array
