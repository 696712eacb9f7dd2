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


MAGIC = 0x1950A86A20F9469CFC6C


class Name:
    """A name of another program, which a pickle imports."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self, *_):
        raise AssertionError("only names are written")


class Call:
    """Asks the reader to call ``name(*arguments)``, then to set ``state``."""

    def __init__(self, module, name, *arguments, state=None):
        self.name, self.arguments, self.state = Name(module, name), arguments, state


class Storage:
    def __init__(self, values):
        self.values = np.asarray(values).reshape(-1)


class Part:
    """Some of a storage, which a tensor's offset counts from."""

    def __init__(self, whole, first, size):
        self.whole, self.first, self.size = whole, first, size


class Tensor:
    """A window on a storage, by default all of it; a parameter as of today or ``"0.3"``."""

    def __init__(self, storage, offset=0, shape=None, strides=None, parameter=False):
        given = isinstance(storage, Storage | Part)
        array = storage.values if isinstance(storage, Storage) else np.asarray(storage)
        self.storage = storage if given else Storage(array)
        self.offset = offset
        self.shape = array.shape if shape is None else shape
        whole = np.cumprod((1, *self.shape[:0:-1]))[::-1]
        self.strides = tuple(map(int, whole[-len(self.shape) :])) if self.shape else ()
        self.strides = self.strides if strides is None else strides
        self.parameter = parameter


class _Pickler(pickle._Pickler):
    def __init__(self, file, legacy=False):
        super().__init__(file, protocol=2)
        self.storages, self.legacy = [], legacy

    def persistent_id(self, obj):
        if not isinstance(obj, Storage | Part):
            return None
        whole = obj.whole if isinstance(obj, Part) else obj
        if whole not in self.storages:
            self.storages.append(whole)
        key, size = str(self.storages.index(whole)), whole.values.size
        part = ("part", obj.first, obj.size) if isinstance(obj, Part) else None
        return ("storage", kind_of(whole), key, "cuda:0", size, *([part] if self.legacy else []))

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save_reduce(obj.name, obj.arguments, obj.state)
        elif isinstance(obj, Tensor):
            window = (obj.storage, obj.offset, obj.shape, obj.strides, False, OrderedDict())
            made = Call("torch._utils", "_rebuild_tensor_v2", *window)
            if obj.parameter == "0.3":
                made = Call("torch._utils", "_rebuild_tensor", *window[:4])
                state = (True, False, OrderedDict())
                made = Call("torch.nn.parameter", "Parameter", made, state=state)
            elif obj.parameter:
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


def kind_of(storage):
    return Name("torch", STORAGES[storage.values.dtype.name])


def _pickled(obj, pickler=_Pickler):
    file = BytesIO()
    pickler(file).dump(obj)
    return file.getvalue()


MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"long": 4}}


def save_legacy(path, obj, *, magic=MAGIC, version=1001, machine=MACHINE, keys=None, sizes=None):
    """Write ``obj`` as ``torch.save`` did before 1.6; the path.

    ``keys`` and ``sizes`` stand in for the list of storages and their numbers of elements.
    """
    file = BytesIO()
    file.write(b"".join(map(_pickled, (magic, version, machine))))
    pickler = _Pickler(file, legacy=True)
    pickler.dump(obj)
    order = [str(key) for key in range(len(pickler.storages))][::-1]  # in no order of use
    file.write(_pickled(order if keys is None else keys))
    for key in order:
        values = pickler.storages[int(key)].values
        size = values.size if sizes is None else sizes
        file.write(size.to_bytes(8, "little", signed=True) + values.tobytes())
    path.write_bytes(file.getvalue())
    return path


def tensors(state, **options):
    """A state_dict as PyTorch holds it."""
    return OrderedDict((name, Tensor(x, **options)) for name, x in state.items())
