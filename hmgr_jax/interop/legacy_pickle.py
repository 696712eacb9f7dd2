"""PyTorch's format before 1.6: pickles one after the other, then the numbers of each storage.

The pickles are a magic number, the version, facts about the machine, what was saved and the list
of the storages' keys. For each key follow the number of its elements (int64) and their bytes, all
little-endian. What is saved with ``_use_new_zipfile_serialization=False`` is in it to this day.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError
from hmgr_jax.interop import torch_pickle
from hmgr_jax.interop.torch_pickle import Storage
from hmgr_jax.interop.torch_saved import Saved, dtype_of

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


class LegacyPickle(Saved):
    """An open file; tensors are read when they are asked for.

    Args:
        stream: a map of the whole file, at its beginning. A map, for it gives no more than there
            is, whatever length a pickle asks for.
        path: names the file in sentences.

    Raises:
        UserError: the file is no such file, damaged, of a big-endian machine, or holds anything
            but tensors and plain values.
    """

    def __init__(self, stream: mmap.mmap, path: Path) -> None:
        super().__init__(path)
        self._stream = stream
        self._met: dict[str, Storage] = {}
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
                f"{path} is in another version of PyTorch's old format than {VERSION}, the only "
                "one known: save it again with a PyTorch of today."
            )
        if isinstance(machine, dict) and machine.get("little_endian") is False:
            raise self._big_endian()
        self.root = self._load()
        self._find(self._load())

    def _load(self) -> Any:
        return torch_pickle.load(self._stream, str(self._path), self._meet)

    def _meet(self, pid: Any) -> Storage:
        """The storage of a persistent id; all ids of one key must say the same of it."""
        storage = torch_pickle.storage_of(pid)
        whole = storage._replace(part=None)
        if self._met.setdefault(storage.key, whole) != whole:
            raise ValueError(f"storage {storage.key} is described twice, differently")
        return storage

    def _find(self, keys: Any) -> None:
        """Where the bytes of each storage begin."""
        if not isinstance(keys, list) or not all(type(key) is str for key in keys):
            raise self._damaged("there is no list of storages where it should be")
        end = len(self._stream)
        place = self._stream.tell()
        for key in keys:
            if key not in self._met:
                raise self._damaged(f"storage {key} is listed, but no tensor lies in it")
            if key in self._places:
                raise self._damaged(f"storage {key} is listed twice")
            storage, begin = self._met[key], place + 8
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
