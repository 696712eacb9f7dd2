"""Small ``.npz`` files of a run or a cache, read whole; their zip entries have checksums."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, MemoryError),
    *(NotImplementedError, RuntimeError, RecursionError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)
"""What numpy and zipfile raise for damaged files."""


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a ``.npz`` by name.

    Raises:
        ValueError: the file is missing or damaged; the message says how.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DAMAGE as error:
        raise ValueError(getattr(error, "strerror", None) or str(error) or "it is empty") from None
