"""Read the pickle in a PyTorch file without importing or calling anything that it names.

A pickle names functions and classes to call. Here a name is looked up in a table of stand-ins that
only hold data; any other name is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

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


def load(data: bytes | Stream, where: str, persistent: Callable[[Any], Any] = storage_of) -> Any:
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
