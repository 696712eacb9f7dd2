"""PyTorch's file formats: tensors are views of storages of plain numbers.

The pickle in a file is read without importing or calling anything that it names: a name is looked
up in a table of stand-ins that only hold data; any other name is refused.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ml_dtypes
import numpy as np

from hmgr_jax.errors import UserError

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""PyTorch's storage classes, and the dtype of their elements."""


class Storage(NamedTuple):
    """A record of the file with the numbers of tensors."""

    key: str
    dtype: str
    elements: int
    part: tuple[int, int] | None = None
    """(first element, size) of the part to which offsets refer; None for the whole record."""


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: Any) -> None:
        """Drop the flags that PyTorch before 0.4 sets on a parameter."""


class Namespace:
    """Stands for ``argparse.Namespace``, the options of a training script."""

    def __init__(self, *_: Any) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.values = state if isinstance(state, dict) else {}


class Stream(Protocol):
    """An open file or memory map; ``read`` never allocates more bytes than there are."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""

    def readline(self) -> bytes:
        """The next line."""


def storage_of(pid: Any) -> Storage:
    """The storage of a persistent id: (kind, type, key, location, elements[, part])."""
    kind, dtype, key, _, elements, *part = pid
    if kind != "storage" or type(key) is not str or not is_size(elements):
        raise ValueError("a reference to something else than a storage")
    if not isinstance(dtype, _StorageType):
        raise ValueError("a storage of an unknown type")
    whole = Storage(key, dtype.dtype, elements)
    if part in ([], [None]):
        return whole
    ((_, first, size),) = part
    if not (is_size(first) and is_size(size)):
        raise ValueError("a part of a storage is no part")
    return whole._replace(part=(first, size))


def is_size(number: Any) -> bool:
    """Whether it can count elements: an int, not negative, not of thousands of digits."""
    return type(number) is int and 0 <= number < 2**128


def load_pickle(
    data: bytes | Stream, where: str, persistent: Callable[[Any], Any] = storage_of
) -> Any:
    """Read a pickled object: plain values, dicts, ``Tensor`` and ``Namespace``.

    Args:
        data: the pickle, or a stream positioned at its beginning.
        where: the file, for messages.
        persistent: returns the object of a persistent id; its errors mean a damaged pickle.

    Raises:
        UserError: the pickle names anything else, or is damaged.
    """
    try:
        return _Unpickler(data, where, persistent).load()
    except UserError:
        raise
    except Exception as error:  # damaged bytes can raise anything
        raise UserError(
            f"{where} holds a pickle that cannot be read ({type(error).__name__}: "
            f"{error or 'it ends too soon'}): it is cut short or damaged, get the file again."
        ) from None


# A pickle may also set attributes. Nothing below keeps any beyond one load: instances and classes
# have __setstate__ or no attributes.


class _Inert:
    """Stands for anything that is neither weights nor options: devices, numpy's numbers."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Items(dict):
    """Stands for ``OrderedDict``; attributes set by PyTorch (versions of modules) are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _StorageType(NamedTuple):
    dtype: str


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, Storage) or not all(map(is_size, numbers)):
            raise ValueError("a tensor is made of other things than a storage and sizes")
        if len(shape) != len(strides):
            raise ValueError("a tensor has another number of strides than of axes")
        return Tensor(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise ValueError("a parameter is made of something else than a tensor")
        return tensor


class _Lines:
    """A stream that raises for a last line without an end, which would be half a name."""

    def __init__(self, file: Stream) -> None:
        self.read, self._readline = file.read, file.readline

    def readline(self) -> bytes:
        line = self._readline()
        if not line.endswith(b"\n"):
            raise EOFError("a line is cut short")
        return line


class _Unpickler(pickle._Unpickler):
    """Python's unpickler in Python: the one in C can be made to allocate any amount of memory."""

    def __init__(self, data: bytes | Stream, where: str, persistent: Callable[[Any], Any]) -> None:
        file = io.BytesIO(data) if isinstance(data, bytes) else data
        super().__init__(_Lines(file), encoding="utf-8", errors="replace")
        self._where, self._persistent = where, persistent
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _Items,
            ("argparse", "Namespace"): Namespace,
            ("builtins", "set"): set,
            ("__builtin__", "set"): set,
            ("torch", "Size"): tuple,
            ("torch", "device"): _Inert,
            ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
            ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),  # before 0.4
            ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
            ("torch.nn.parameter", "Parameter"): _RebuildParameter(),  # before 0.4
            # A best recall computed by numpy.
            ("numpy.core.multiarray", "scalar"): _Inert,
            ("numpy._core.multiarray", "scalar"): _Inert,
            ("numpy", "dtype"): _Inert,
            ("_codecs", "encode"): _Inert,
        }
        for module in ("torch", "torch.cuda"):
            for name, dtype in STORAGES.items():
                self._known[module, name] = _StorageType(dtype)
                self._known[module, name.replace("Storage", "Tensor")] = _Inert

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name; nothing is imported."""
        try:
            return self._known[module, name]
        except KeyError:
            raise UserError(
                f"{self._where} asks for {module}.{name}, which is neither a tensor nor a plain "
                "value and could run any program, so the file was refused and nothing was run: "
                "get one that holds a state_dict alone, from torch.save(model.state_dict(), ...)."
            ) from None

    def get_extension(self, code: int) -> None:
        """Refuse numbers that stand for names, which no PyTorch file has."""
        self.find_class("copyreg", f"extension {code}")

    def persistent_load(self, pid: Any) -> Any:
        """The object of a persistent id, a storage."""
        return self._persistent(pid)


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
        try:
            info = self._archive.getinfo(self._prefix + name)
            if info.compress_type != zipfile.ZIP_STORED:  # could unpack to any size
                raise self._damaged(f"{name} is compressed, as torch.save never does")
            return self._archive.read(info)
        except KeyError:
            raise self._damaged(f"the record {name} is missing") from None
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise self._damaged(str(error)) from None


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
