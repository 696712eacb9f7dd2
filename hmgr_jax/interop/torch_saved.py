"""What the formats of PyTorch have in common: tensors are windows on storages of plain numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.interop.torch_pickle import Storage, Tensor

EXPANDED = 2**24
"""Elements of a tensor whose storage holds fewer, as strides of 0 make it: more are refused."""


class Saved:
    """An open file that torch.save wrote; tensors are read when they are asked for."""

    root: Any
    """What was saved, with ``Tensor`` for tensors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._storages: dict[Storage, np.ndarray] = {}

    def array(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor: a read-only view that honours its offset and strides.

        Raises:
            UserError: it reaches out of its storage, or the storage is damaged.
        """
        storage, offset, shape, strides = tensor
        flat, count = self._window(storage), math.prod(shape)
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if count and last >= flat.size:
            raise self._damaged(f"a tensor reaches element {last} of a storage of {flat.size}")
        if count > max(flat.size, EXPANDED):
            raise self._damaged(f"a tensor has {count} elements of a storage of {flat.size}")
        steps = [s * flat.itemsize for s in strides]
        try:
            if not count:
                return np.empty(shape, flat.dtype)
            return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)
        except (ValueError, OverflowError) as error:
            raise self._damaged(f"a tensor is of no possible shape: {error}") from None

    def _window(self, storage: Storage) -> np.ndarray:
        """A storage, or the part of it that a tensor's offset counts from."""
        whole = storage._replace(part=None)
        if whole not in self._storages:
            data, dtype = self._bytes_of(whole), dtype_of(whole)
            if len(data) != whole.elements * dtype.itemsize:
                raise self._damaged(
                    f"storage {whole.key} has {len(data)} bytes for {whole.elements} x {dtype}"
                )
            self._storages[whole] = np.frombuffer(data, dtype)
        flat = self._storages[whole]
        if storage.part is None:
            return flat
        first, size = storage.part
        if first + size > flat.size:
            raise self._damaged(f"a part reaches element {first + size} of {flat.size}")
        return flat[first : first + size]

    def _bytes_of(self, storage: Storage) -> bytes:
        """The bytes of a whole storage; how many there should be is checked elsewhere."""
        raise NotImplementedError

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self._path} is damaged ({what}): get the file again.")

    def _cut_short(self, what: str) -> UserError:
        return UserError(f"{self._path} is cut short or damaged ({what}): get the file again.")

    def _big_endian(self) -> UserError:
        return UserError(
            f"{self._path} was written on a big-endian machine, which is not supported: load it "
            "there and save it as .safetensors."
        )


def dtype_of(storage: Storage) -> np.dtype:
    """The type of the elements of a storage."""
    return np.dtype(ml_dtypes.bfloat16 if storage.dtype == "bfloat16" else storage.dtype)
