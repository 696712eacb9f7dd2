"""The pickle in PyTorch's files: tensors as views of storages, and the options of a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hmgr_jax.files import plain_pickle
from hmgr_jax.files.plain_pickle import Inert, Items, Stream, plain_keys, used_up

AXES = 64
"""Most axes of a tensor."""
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


class _StorageType(NamedTuple):
    dtype: str


class _RebuildTensor:
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
        if not type(shape) is type(strides) is tuple or not len(shape) == len(strides) <= AXES:
            raise ValueError(f"a tensor has another number of strides than of axes, or over {AXES}")
        if not isinstance(storage, Storage) or not all(map(is_size, (offset, *shape, *strides))):
            raise ValueError("a tensor is made of other things than a storage and sizes")
        return Tensor(storage, offset, shape, strides)


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise ValueError("a parameter is made of something else than a tensor")
        return tensor


class _Size:
    __slots__ = ()

    def __call__(self, sizes: Any) -> tuple[Any, ...]:
        if type(sizes) not in (tuple, list) or len(sizes) > AXES:
            raise ValueError(f"a size is no tuple, or has more than {AXES} axes")
        return tuple(sizes)


class _Set:
    __slots__ = ()

    def __call__(self, members: Any) -> set[Any]:
        return set(plain_keys(used_up(members)))


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Items,
    ("argparse", "Namespace"): Namespace,
    ("builtins", "set"): _Set(),
    ("__builtin__", "set"): _Set(),
    ("torch", "Size"): _Size(),
    ("torch", "device"): Inert,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),  # before 0.4
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch.nn.parameter", "Parameter"): _RebuildParameter(),  # before 0.4
    # A best recall computed by numpy.
    ("numpy.core.multiarray", "scalar"): Inert,
    ("numpy._core.multiarray", "scalar"): Inert,
    ("numpy", "dtype"): Inert,
    ("_codecs", "encode"): Inert,
}
for _module in ("torch", "torch.cuda"):
    for _name, _dtype in STORAGES.items():
        KNOWN[_module, _name] = _StorageType(_dtype)
        KNOWN[_module, _name.replace("Storage", "Tensor")] = Inert


def load_pickle(
    data: bytes | Stream, where: str, persistent: Callable[[Any], Any] = storage_of
) -> Any:
    """Read a pickled object: plain values, dicts, ``Tensor`` and ``Namespace``.

    Raises:
        UserError: the pickle names anything else, or is damaged.
    """
    advice = "get one that holds a state_dict alone, from torch.save(model.state_dict(), ...)."
    return plain_pickle.load_pickle(data, where, KNOWN, persistent, advice)
