"""PyTorch's file formats: a zip archive, and the pickles before PyTorch 1.6."""

from __future__ import annotations

import math
import mmap
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import readable
from hmgr_jax.interop.torch_pickle import Storage, Tensor, load_pickle, storage_of

EXPANDED = 2**24
"""Largest number of elements of a tensor with fewer elements in its storage (strides of 0)."""


class Saved:
    """An open file that torch.save wrote; tensors are read on demand."""

    root: Any
    """The saved object, with ``Tensor`` for tensors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._storages: dict[Storage, np.ndarray] = {}

    def array(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor as a read-only view.

        Raises `UserError` if it exceeds its storage or the storage is damaged.
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
        """A storage, or its part to which a tensor's offset refers."""
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
        """The bytes of a whole storage; the caller checks their number."""
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


PICKLE = "data.pkl"


class TorchZip(Saved):
    """An open zip archive, the current format."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        super().__init__(path)
        self._archive = archive
        names = [n for n in archive.namelist() if n.endswith(f"/{PICKLE}") and n.count("/") == 1]
        if len(names) != 1:
            raise UserError(
                f"{path} is a zip file with {len(names)} records FOLDER/{PICKLE} instead of one: "
                "give what torch.save wrote."
            )
        self._prefix = names[0].removesuffix(PICKLE)
        order = f"{self._prefix}byteorder"
        if order in archive.namelist() and self._record("byteorder") != b"little":
            raise self._big_endian()
        self.root = load_pickle(self._record(PICKLE), str(path))

    def _bytes_of(self, storage: Storage) -> bytes:
        return self._record(f"data/{storage.key}")

    def _record(self, name: str) -> bytes:
        if self._prefix + name not in self._archive.NameToInfo:
            raise self._damaged(f"the record {name} is missing")
        info = self._archive.getinfo(self._prefix + name)
        if info.compress_type != zipfile.ZIP_STORED:  # could unpack to any size
            raise self._damaged(f"{name} is compressed, as torch.save never does")
        with readable(self._path, "weights", "it is damaged, get the file again."):
            return self._archive.read(info)


MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


class LegacyPickle(Saved):
    """An open file of the format before PyTorch 1.6.

    ``stream`` is a memory map of the whole file, which never returns more bytes than there are,
    whatever length a pickle asks for.
    """

    def __init__(self, stream: mmap.mmap, path: Path) -> None:
        super().__init__(path)
        self._stream = stream
        self._seen: dict[str, Storage] = {}
        self._places: dict[str, int] = {}
        magic = self._load()
        if type(magic) is not int or magic != MAGIC:
            raise UserError(
                f"{path} is a pickle without PyTorch's magic number at its beginning: give what "
                "torch.save wrote."
            )
        version, machine = self._load(), self._load()
        if type(version) is not int or version != VERSION:
            raise UserError(
                f"{path} is in an unsupported version of PyTorch's old format (only {VERSION} is "
                "supported): save it again with a current PyTorch."
            )
        if isinstance(machine, dict) and machine.get("little_endian") is False:
            raise self._big_endian()
        self.root = self._load()
        self._find(self._load())

    def _load(self) -> Any:
        return load_pickle(self._stream, str(self._path), self._add_storage)

    def _add_storage(self, pid: Any) -> Storage:
        """The storage of a persistent id; all ids of one key must agree."""
        storage = storage_of(pid)
        whole = storage._replace(part=None)
        if self._seen.setdefault(storage.key, whole) != whole:
            raise ValueError(f"storage {storage.key} is described twice, differently")
        return storage

    def _find(self, keys: Any) -> None:
        """Find the first byte of each storage."""
        if not isinstance(keys, list) or not all(type(key) is str for key in keys):
            raise self._damaged("there is no list of storages where it should be")
        end = len(self._stream)
        place = self._stream.tell()
        for key in keys:
            if key not in self._seen:
                raise self._damaged(f"storage {key} is listed, but no tensor lies in it")
            if key in self._places:
                raise self._damaged(f"storage {key} is listed twice")
            storage, begin = self._seen[key], place + 8
            if begin > end:
                raise self._cut_short(f"storage {key} is missing")
            elements = int.from_bytes(self._stream[place:begin], "little", signed=True)
            if elements != storage.elements:
                raise self._damaged(
                    f"storage {key} has {elements} elements and should have {storage.elements}"
                )
            place = begin + elements * dtype_of(storage).itemsize
            if place > end:
                raise self._cut_short(
                    f"storage {key} of {elements} elements needs {place - end} bytes more"
                )
            self._places[key] = begin

    def _bytes_of(self, storage: Storage) -> bytes:
        try:
            begin = self._places[storage.key]
        except KeyError:
            raise self._damaged(f"storage {storage.key} is not in the list of storages") from None
        return self._stream[begin : begin + storage.elements * dtype_of(storage).itemsize]
