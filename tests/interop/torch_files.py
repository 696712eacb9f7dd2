"""Files as ``torch.save`` writes them, made without PyTorch."""

import pickle
import zipfile
from collections import OrderedDict
from io import BytesIO

import numpy as np

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


class Name:
    """A name of another program, which a pickle imports."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self, *_):
        raise AssertionError("only names are written")


class Call:
    """Asks the reader to call ``name(*arguments)``."""

    def __init__(self, module, name, *arguments):
        self.name, self.arguments = Name(module, name), arguments


class Storage:
    def __init__(self, values):
        self.values = np.asarray(values).reshape(-1)


class Tensor:
    """A window on a storage, by default all of it."""

    def __init__(self, storage, offset=0, shape=None, strides=None, parameter=False):
        array = storage.values if isinstance(storage, Storage) else np.asarray(storage)
        self.storage = storage if isinstance(storage, Storage) else Storage(array)
        self.offset = offset
        self.shape = array.shape if shape is None else shape
        whole = np.cumprod((1, *self.shape[:0:-1]))[::-1]
        self.strides = tuple(map(int, whole[-len(self.shape) :])) if self.shape else ()
        self.strides = self.strides if strides is None else strides
        self.parameter = parameter


class _Pickler(pickle._Pickler):
    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        if obj not in self.storages:
            self.storages.append(obj)
        kind = Name("torch", STORAGES[obj.values.dtype.name])
        return ("storage", kind, str(self.storages.index(obj)), "cuda:0", obj.values.size)

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save_reduce(obj.name, obj.arguments)
        elif isinstance(obj, Tensor):
            window = (obj.storage, obj.offset, obj.shape, obj.strides, False, OrderedDict())
            made = Call("torch._utils", "_rebuild_tensor_v2", *window)
            if obj.parameter:
                made = Call("torch._utils", "_rebuild_parameter", made, True, OrderedDict())
            self.save(made)
        else:
            super().save(obj, save_persistent_id)


def save(
    path, obj, *, folder="archive", byteorder="little", compression=zipfile.ZIP_STORED, leave_out=()
):
    """Write ``obj`` as ``torch.save`` would; the path."""
    file = BytesIO()
    pickler = _Pickler(file)
    pickler.dump(obj)
    records = {
        "data.pkl": file.getvalue(),
        "byteorder": byteorder.encode(),
        **{f"data/{key}": s.values.tobytes() for key, s in enumerate(pickler.storages)},
        "version": b"3\n",
    }
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            if name not in leave_out:
                archive.writestr(f"{folder}/{name}", data)
    return path


def tensors(state, **options):
    """A state_dict as PyTorch holds it."""
    return OrderedDict((name, Tensor(x, **options)) for name, x in state.items())
