"""PyTorch's zip format: a pickle that describes tensors, and a record a storage with the numbers.

Records are ``NAME/data.pkl``, ``NAME/data/KEY`` and ``NAME/byteorder``, all stored uncompressed
(PyTorch's notes on serialization; the default of ``torch.save`` since 1.6).
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.interop import torch_pickle
from hmgr_jax.interop.torch_pickle import Storage, Tensor

PICKLE = "data.pkl"
EXPANDED = 2**24
"""Elements of a tensor whose storage holds fewer, as strides of 0 make it: more are refused."""


class TorchZip:
    """An open archive; tensors are read when they are asked for.

    Raises:
        UserError: the archive is damaged, of a big-endian machine, or holds anything but tensors
            and plain values.
    """

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path = archive, path
        names = [n for n in archive.namelist() if n.endswith(f"/{PICKLE}") and n.count("/") == 1]
        if len(names) != 1:
            raise UserError(
                f"{path} is a zip file with {len(names)} records FOLDER/{PICKLE} instead of one: "
                "give what torch.save wrote."
            )
        self._prefix = names[0].removesuffix(PICKLE)
        self._storages: dict[Storage, np.ndarray] = {}
        order = f"{self._prefix}byteorder"
        if order in archive.namelist() and self._record("byteorder") != b"little":
            raise UserError(
                f"{path} was written on a big-endian machine, which is not supported: load it "
                "there and save it as .safetensors."
            )
        self.root: Any = torch_pickle.load(self._record(PICKLE), str(path))
        """What was saved, with ``Tensor`` for tensors."""

    def array(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor: a read-only view that honours its offset and strides."""
        storage, offset, shape, strides = tensor
        flat, count = self._storage(storage), math.prod(shape)
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

    def _storage(self, storage: Storage) -> np.ndarray:
        if storage not in self._storages:
            data = self._record(f"data/{storage.key}")
            narrow = storage.dtype == "bfloat16"
            dtype = np.dtype(ml_dtypes.bfloat16 if narrow else storage.dtype)
            if len(data) != storage.elements * dtype.itemsize:
                raise self._damaged(
                    f"storage {storage.key} has {len(data)} bytes for {storage.elements} x {dtype}"
                )
            self._storages[storage] = np.frombuffer(data, dtype)
        return self._storages[storage]

    def _record(self, name: str) -> bytes:
        try:
            info = self._archive.getinfo(self._prefix + name)
            if info.compress_type != zipfile.ZIP_STORED:  # could unpack to any size
                raise self._damaged(f"{name} is compressed, as torch.save never does")
            return self._archive.read(info)
        except KeyError:
            raise self._damaged(f"the record {name} is missing") from None
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self._path} is damaged ({what}): get the file again.")
