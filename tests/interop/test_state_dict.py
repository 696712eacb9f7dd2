"""Files of weights: every format, what is found in them, and what is refused without being run."""

import argparse
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from torch_files import Call, Name, Storage, Tensor, save, tensors

from hmgr_jax.errors import UserError
from hmgr_jax.interop import state_dict
from hmgr_jax.interop.state_dict import read, read_weights

STATE = {
    "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fc.bias": np.array([0.5, -0.0], np.float32),
    "count": np.array(7, np.int64),
}


ONE = np.ones(3, np.float32)


def _same(found, wanted):
    assert list(found) == list(wanted)
    for name, x in wanted.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_array_equal(found[name], x)


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "model_best.pth.tar", "no_suffix"])
def test_torch(tmp_path, name):
    _same(read(save(tmp_path / name, tensors(STATE), folder="model_best")), STATE)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool", "bfloat16"])
def test_types(tmp_path, dtype):
    x = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    _same(read(save(tmp_path / "a.pth", tensors({"x": x}))), {"x": x})
    safetensors.numpy.save_file({"x": x}, tmp_path / "a.safetensors")
    _same(read(tmp_path / "a.safetensors"), {"x": x})


def test_windows_on_one_storage(tmp_path):
    storage = Storage(np.arange(20, dtype=np.float32))
    state = {
        "transposed": Tensor(storage, 2, (3, 4), (1, 3)),
        "every_second": Tensor(storage, 1, (5,), (2,)),
        "expanded": Tensor(storage, 19, (2, 2), (0, 0)),
        "scalar": Tensor(storage, 4, (), ()),
        "empty": Tensor(storage, 0, (0, 3), (3, 1)),
        "parameter": Tensor(storage, 0, (2, 10), (10, 1), parameter=True),
    }
    flat = storage.values
    wanted = {
        "transposed": flat[2:14].reshape(4, 3).T,
        "every_second": flat[1:10:2],
        "expanded": np.full((2, 2), 19, np.float32),
        "scalar": flat[4],
        "empty": np.zeros((0, 3), np.float32),
        "parameter": flat.reshape(2, 10),
    }
    found = read(save(tmp_path / "a.pth", state))
    assert found["scalar"].shape == ()
    _same(found, wanted)


def test_a_checkpoint_of_the_scan_family(tmp_path):
    """The state_dict lies within, under DataParallel's names, beside options and numpy's numbers.

    The optimiser's tensors are not read: their storage is missing here.
    """
    options = argparse.Namespace(model_mode="text_IMRAM", iteration_step=3, vocab=[1], resume=None)
    best = Call(
        "numpy.core.multiarray",
        "scalar",
        Call("numpy", "dtype", "f8", False, True),
        Call("_codecs", "encode", "\x00\x01", "latin1"),
    )
    state = OrderedDict((f"module.{n}", x) for n, x in tensors(STATE).items())
    state_with_versions = Call("collections", "OrderedDict", list(map(list, state.items())))
    for place, inner in enumerate((state, state_with_versions)):
        path = save(
            tmp_path / f"{place}.pth.tar",
            {
                "epoch": 3,
                "model": inner,
                "best_rsum": best,
                "opt": options,
                "optimizer": {"state": {0: {"exp_avg": Tensor(np.ones(4, np.float32))}}},
                "seen": {1, 2},
                "size": Call("torch", "Size", [2, 3]),
                "device": Call("torch", "device", "cuda"),
            },
            leave_out=("data/3",),
        )
        found = read_weights(path)
        _same(found.state, STATE)
        assert found.options == {"model_mode": "text_IMRAM", "iteration_step": 3}


def test_state_dict_key_and_partial_prefix(tmp_path):
    state = {"module.a": np.ones(2, np.float32), "b": np.ones(1, np.float32)}
    _same(read(save(tmp_path / "a.pth", {"state_dict": tensors(state)})), state)


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", **STATE)
    _same(read(tmp_path / "a.npz"), STATE)


def test_written_safetensors_come_back(tmp_path):
    path = tmp_path / "a.safetensors"
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    state_dict.write(path, STATE | {"strided": strided}, {"config": "{}"})
    found = read_weights(path)
    _same(dict(sorted(found.state.items())), dict(sorted((STATE | {"strided": strided}).items())))
    assert found.metadata == {"config": "{}"}
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"a\.safetensors exists and is not overwritten"):
        state_dict.write(path, {}, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_folder_to_write_to_that_is_not_there(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UserError, match=rf"because there is no folder {folder}: make it"):
            state_dict.write(folder / "a.safetensors", STATE, {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(_, path, __):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(OSError, match="No space"):
        state_dict.write(tmp_path / "a.safetensors", STATE, {})
    assert list(tmp_path.iterdir()) == []


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("os", "system", ("touch RAN",)),
        ("posix", "system", ("touch RAN",)),
        ("builtins", "eval", ("open('RAN', 'w')",)),
        ("builtins", "getattr", ("", "x")),
        ("subprocess", "Popen", (["touch", "RAN"],)),
        ("hmgr_jax.interop.torch_files", "load_pickle", (b"", "")),
        ("torch.nn.modules.linear", "Linear", ()),
        ("torch._utils", "_rebuild_tensor_v3", ()),
        ("argparse", "ArgumentParser", ()),
        ("numpy", "load", ("RAN",)),
    ],
)
def test_a_pickle_that_would_run_code(tmp_path, monkeypatch, module, name, arguments):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "a.pth", tensors(STATE) | {"x": Call(module, name, *arguments)})
    with pytest.raises(UserError, match=rf"a\.pth asks for {module}\.{name}, which is neither"):
        read(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def _with_pickle(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NX\x08\x00\x00\x00__call__Nsb.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\nK\x05\x85R.",
        b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",
        b"\x80\x02(X\x07\x00\x00\x00storageK\x01K\x02K\x03K\x04tQ.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02]q\x00r\xff\xff\xff\x7f",
        b"Pnothing\n.",
        b"\x80\x02",
        b"",
        b"not a pickle",
    ],
)
def test_a_pickle_of_nonsense(tmp_path, data):
    with pytest.raises(UserError, match=r"a pickle that cannot be read|copyreg"):
        read(_with_pickle(tmp_path / "a.pth", data))


def test_a_pickle_changes_nothing_for_the_next_one(tmp_path):
    """BUILD sets attributes of whatever is on the stack, classes too."""
    change = b"(N}X\x0c\x00\x00\x00__setstate__ctorch\nSize\nstb."
    for name in (
        b"argparse\nNamespace",
        b"collections\nOrderedDict",
        b"numpy\ndtype",
        b"torch\nFloatStorage",
        b"torch\nSize",
        b"torch._utils\n_rebuild_tensor_v2",
    ):
        with pytest.raises(UserError, match="a pickle that cannot be read"):
            read(_with_pickle(tmp_path / "a.pth", b"\x80\x02c" + name + b"\n" + change))
    path = save(
        tmp_path / "b.pth", {"model": tensors(STATE), "opt": argparse.Namespace(model_mode="x")}
    )
    assert read_weights(path).options == {"model_mode": "x"}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_truncated(tmp_path, share):
    for path in (
        save(tmp_path / "a.pth", tensors(STATE)),
        tmp_path / "a.safetensors",
        tmp_path / "a.npz",
    ):
        if path.suffix == ".safetensors":
            safetensors.numpy.save_file(STATE, path)
        elif path.suffix == ".npz":
            np.savez(path, **STATE)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UserError, match=rf"{path.name} .*cut short or damaged"):
            read(path)


def test_a_flipped_bit(tmp_path):
    path = save(tmp_path / "a.pth", tensors(STATE))
    data = bytearray(path.read_bytes())
    data[data.index(STATE["fc.weight"].tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.pth cannot be read as weights \(Bad CRC-32"):
        read(path)


@pytest.mark.parametrize(
    ("obj", "options", "sentence"),
    [
        (tensors(STATE), {"byteorder": "big"}, "written on a big-endian machine"),
        (tensors(STATE), {"leave_out": ("data/0",)}, "the record data/0 is missing"),
        (tensors(STATE), {"compression": zipfile.ZIP_DEFLATED}, "is compressed, as torch.save"),
        (tensors(STATE), {"folder": "a/b"}, r"0 records FOLDER/data\.pkl"),
        ({"x": Tensor(np.ones(3, np.float32), 1)}, {}, "reaches element 3 of a storage of 3"),
        ({"x": Tensor(np.ones(3, np.float32), 0, (2,), (3,))}, {}, "reaches element 3 of"),
        ({"x": Tensor(np.ones(3, np.float32), -1, (2,), (1,))}, {}, "cannot be read"),
        ({"x": Tensor(np.ones(3, np.float32), 0, (2,), ())}, {}, "another number of strides"),
        ({"x": Tensor(ONE, 0, (0, 2**62, 5), (1, 1, 1))}, {}, "damaged .*no possible shape"),
        ({"x": Tensor(ONE, 0, (0, 2**70), (1, 1))}, {}, "damaged .*no possible shape"),
        ({"x": Tensor(ONE, 0, (1,) * 70, (0,) * 70)}, {}, "or over 64"),
        ({"x": Tensor(ONE, 0, (1,), (2**66,))}, {}, "damaged .*no possible shape"),
        (
            {"x": Tensor(ONE, 0, (2**40, 2**40), (0, 0))},
            {},
            r"damaged .*elements of a storage of 3",
        ),
        ({"x": Tensor(ONE, 0, (2**13, 2**12), (0, 0))}, {}, r"33554432 elements of a storage of 3"),
        ([1, 2], {}, r"holds no state_dict \(it is a list\)"),
        (Tensor(np.ones(3, np.float32)), {}, r"holds no state_dict \(it is a Tensor\)"),
        ({"epoch": 3}, {}, r"holds no state_dict \(among its keys are epoch\)"),
        ({"model": [tensors(STATE)]}, {}, r"holds no state_dict \(it is a list\)"),
        (tensors(STATE) | {"hook": "text"}, {}, r"among its keys are hook\)"),
        ({}, {}, "holds no tensors"),
    ],
)
def test_other_zip_files(tmp_path, obj, options, sentence):
    with pytest.raises(UserError, match=rf"a\.pth .*{sentence}"):
        read(save(tmp_path / "a.pth", obj, **options))


def test_a_model_saved_whole(tmp_path):
    """``torch.save(model)`` names the classes of the program it came from."""
    with pytest.raises(UserError, match=r"asks for model\.SCAN, .*torch\.save\(model\.state_dict"):
        read(save(tmp_path / "a.pth", Name("model", "SCAN")))


def test_other_files(tmp_path):
    page = tmp_path / "a.pth"
    page.write_text("<!DOCTYPE html> quota exceeded")
    with pytest.raises(UserError, match="no file of weights that is known"):
        read(page)
    with pytest.raises(UserError, match=r"There is no file of weights .*none\.pth"):
        read(tmp_path / "none.pth")
    with zipfile.ZipFile(page, "w") as archive:
        archive.writestr("photo.jpg", b"")
    with pytest.raises(UserError, match="neither PyTorch's nor numpy's"):
        read(page)
    np.savez(tmp_path / "a.npz", x=np.array([object()], object))
    with pytest.raises(UserError, match="it holds pickled objects"):
        read(tmp_path / "a.npz")


def test_bfloat16_is_numpys(tmp_path):
    x = np.array([1.5, -2], ml_dtypes.bfloat16)
    found = read(save(tmp_path / "a.pth", tensors({"x": x})))["x"]
    np.testing.assert_array_equal(found.astype(np.float32), [1.5, -2])
