"""PyTorch's first format, of version 0.1: a tar of storages, tensors on them, and a pickle.

``storages`` holds their count, for each a pickled (key, location, type), the number of elements
(int64) and the bytes, then the pickled list of parts (key, key of the whole, first, size).
``tensors`` holds their count and for each a pickled (key, storage, type), the number of axes (int32
and 4 bytes of nothing), sizes, strides and offset (int64). ``pickle`` refers to tensors by key. All
is little-endian. torchvision's first ResNets are in it (``resnet18-5c106cde.pth``, as pull request
26723 of PyTorch says).
"""

from __future__ import annotations

import io
import mmap
import tarfile
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError
from hmgr_jax.interop import torch_pickle
from hmgr_jax.interop.torch_pickle import Storage, Tensor, is_size
from hmgr_jax.interop.torch_saved import Saved, dtype_of

MEMBERS = ("sys_info", "storages", "tensors", "pickle")
AXES = 64
"""Axes that an array may have."""


class LegacyTar(Saved):
    """A file, read as a whole; nothing is unpacked to the disk.

    Args:
        stream: a map of the whole file; see ``LegacyPickle``.
        path: names the file in sentences.

    Raises:
        UserError: the file is another tar, damaged, of a big-endian machine, or holds anything but
            tensors and plain values.
    """

    def __init__(self, stream: mmap.mmap, path: Path) -> None:
        super().__init__(path)
        self._bytes: dict[Storage, bytes] = {}
        streams = self._members(stream)
        machine = self._load(streams["sys_info"])
        if isinstance(machine, dict) and machine.get("little_endian") is False:
            raise self._big_endian()
        storages = self._read_storages(streams["storages"])
        tensors = self._read_tensors(streams["tensors"], storages)
        # A KeyError or ValueError becomes the sentence about a damaged pickle.
        self.root = torch_pickle.load(streams["pickle"], str(path), lambda key: tensors[int(key)])

    def _members(self, stream: mmap.mmap) -> dict[str, io.BytesIO]:
        found = {}
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.name in MEMBERS else None
                    if file and member.isreg() and not member.issparse():
                        found[member.name] = io.BytesIO(file.read())
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise self._cut_short(str(error)) from None
        missing = [name for name in MEMBERS if name not in found]
        if missing:
            raise UserError(
                f"{self._path} is a tar without {', '.join(missing)}, so it is cut short or "
                "damaged, or not PyTorch's: get the file again, or unpack it and give what is in "
                "it."
            )
        return found

    def _read_storages(self, stream: io.BytesIO) -> dict[int, Storage]:
        found: dict[int, Storage] = {}
        for _ in range(self._count(stream)):
            key, _, kind = self._fields(stream, 3)
            elements = self._number(stream)
            try:
                storage = Storage(str(key), torch_pickle.dtype_named(kind), elements)
            except ValueError as error:
                raise self._damaged(str(error)) from None
            size = elements * dtype_of(storage).itemsize
            found[key], self._bytes[storage] = storage, self._bytes_at(stream, size)
        parts = self._load(stream)
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, tuple) or len(part) != 4 or not all(map(is_size, part)):
                raise self._damaged("a part of a storage is no part")
            key, whole, first, size = part
            if whole not in found:
                raise self._damaged("a part of a storage that is not there")
            found[key] = found[whole]._replace(part=(first, size))
        return found

    def _read_tensors(self, stream: io.BytesIO, storages: dict[int, Storage]) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        for _ in range(self._count(stream)):
            key, storage, _ = self._fields(stream, 3)
            if not is_size(storage) or storage not in storages:
                raise self._damaged("a tensor lies in a storage that is not there")
            axes = int.from_bytes(self._bytes_at(stream, 8)[:4], "little")
            if axes > AXES:
                raise self._damaged(f"a tensor has {axes} axes")
            sizes = tuple(self._number(stream) for _ in range(axes))
            strides = tuple(self._number(stream) for _ in range(axes))
            found[key] = Tensor(storages[storage], self._number(stream), sizes, strides)
        return found

    def _load(self, stream: io.BytesIO) -> Any:
        return torch_pickle.load(stream, str(self._path))

    def _count(self, stream: io.BytesIO) -> int:
        count = self._load(stream)
        if type(count) is not int:
            raise self._damaged("there is no count where it should be")
        return count

    def _fields(self, stream: io.BytesIO, count: int) -> tuple[Any, ...]:
        found = self._load(stream)
        if not isinstance(found, tuple) or len(found) != count or not is_size(found[0]):
            raise self._damaged("a description of a storage or tensor is none")
        return found

    def _number(self, stream: io.BytesIO) -> int:
        number = int.from_bytes(self._bytes_at(stream, 8), "little", signed=True)
        if number < 0:
            raise self._damaged(f"a size, stride or offset is {number}")
        return number

    def _bytes_at(self, stream: io.BytesIO, size: int) -> bytes:
        data = stream.read(min(size, len(stream.getbuffer())))
        if len(data) < size:
            raise self._cut_short(f"{size - len(data)} bytes are missing")
        return data

    def _bytes_of(self, storage: Storage) -> bytes:
        return self._bytes[storage]
