"""PyTorch's format before 1.6: a stream of pickles."""

import argparse
import os
import pickle
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
from torch_files import MACHINE, Name, Part, Storage, Tensor, save_legacy, tensors

from hmgr_jax.errors import UserError
from hmgr_jax.interop.state_dict import read, read_weights

STATE = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn1.running_var": np.array([0.5, -0.0], np.float32),
    "bn1.num_batches_tracked": np.array(2**40 + 7, np.int64),
    "half": np.array([1.5, -2], np.float16),
    "bytes": np.array([0, 255, 3], np.uint8),
}
ONE = np.ones(3, np.float32)


def _same(found, wanted):
    assert list(found) == list(wanted)
    for name, x in wanted.items():
        assert found[name].dtype == x.dtype
        assert found[name].shape == x.shape
        np.testing.assert_array_equal(found[name], x)


@pytest.mark.parametrize("name", ["a.pth", "model_best.pth.tar", "no_suffix"])
@pytest.mark.parametrize("parameter", [False, "0.3"])
def test_a_state_dict(tmp_path, name, parameter):
    """Tensors, and parameters as PyTorch before 0.4 wrote them into a state_dict."""
    state = tensors(STATE, parameter=parameter)
    _same(read(save_legacy(tmp_path / name, state)), STATE)


def test_windows_on_one_storage(tmp_path):
    storage = Storage(np.arange(20, dtype=np.float32))
    state = {
        "transposed": Tensor(storage, 2, (3, 4), (1, 3)),
        "every_second": Tensor(storage, 1, (5,), (2,)),
        "expanded": Tensor(storage, 19, (2, 2), (0, 0)),
        "scalar": Tensor(storage, 4, (), ()),
        "empty": Tensor(storage, 0, (0, 3), (3, 1)),
        "of_a_part": Tensor(Part(storage, 5, 6), 1, (2, 2), (3, 1)),
        "alone": Tensor(np.arange(3, dtype=np.float32)),
    }
    flat = storage.values
    wanted = {
        "transposed": flat[2:14].reshape(4, 3).T,
        "every_second": flat[1:10:2],
        "expanded": np.full((2, 2), 19, np.float32),
        "scalar": flat[4],
        "empty": np.zeros((0, 3), np.float32),
        "of_a_part": np.array([[6, 7], [9, 10]], np.float32),
        "alone": flat[:3],
    }
    _same(read(save_legacy(tmp_path / "a.pth", state)), wanted)
    state = {"x": Tensor(Part(storage, 5, 6), 1, (6,), (1,))}
    with pytest.raises(UserError, match=r"a\.pth is damaged \(a tensor reaches element 6 of a"):
        read(save_legacy(tmp_path / "a.pth", state))
    state = {"x": Tensor(Part(storage, 15, 6), 0, (1,), (1,))}
    with pytest.raises(UserError, match=r"a\.pth is damaged \(a part reaches element 21 of 20"):
        read(save_legacy(tmp_path / "a.pth", state))


def test_a_checkpoint(tmp_path):
    """The state_dict lies within, under DataParallel's names, beside options and an optimiser."""
    path = save_legacy(
        tmp_path / "a.pth.tar",
        {
            "epoch": 3,
            "model": OrderedDict((f"module.{n}", x) for n, x in tensors(STATE).items()),
            "opt": argparse.Namespace(model_mode="text_IMRAM", resume=None),
            "optimizer": {"state": {0: {"exp_avg": Tensor(np.ones(4, np.float32))}}},
        },
    )
    found = read_weights(path)
    _same(found.state, STATE)
    assert found.options == {"model_mode": "text_IMRAM"}


# --- refused ----------------------------------------------------------------------------------


class Attack:
    """A pickle of it makes a file where the command runs."""

    def __reduce__(self):
        return os.system, ("touch RAN",)


BAD = pickle.dumps(Attack(), 2)


def _refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"{path.name} asks for \w+\.system, which is neither"):
        read(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("place", range(5))
def test_any_pickle_that_would_run_code(tmp_path, monkeypatch, place):
    """The magic number, version, machine, object and keys are pickles each."""
    good = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, MACHINE, {}, [])]
    path = tmp_path / "a.pth"
    path.write_bytes(b"".join(good[:place]) + BAD + b"".join(good[place + 1 :]))
    _refused(tmp_path, monkeypatch, path)


def test_a_model_saved_whole(tmp_path):
    with pytest.raises(UserError, match=r"asks for model\.SCAN, .*torch\.save\(model\.state_dict"):
        read(save_legacy(tmp_path / "a.pth", Name("model", "SCAN")))


def test_truncated_anywhere(tmp_path):
    path = save_legacy(tmp_path / "a.pth", tensors({"a": ONE, "b": np.arange(4)}))
    whole = path.read_bytes()
    end = len(whole)
    for length in range(40, end, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a\.pth .*(cut short or )?damaged"):
            read(path)


@pytest.mark.parametrize(
    ("obj", "options", "sentence"),
    [
        ({}, {"magic": 0x1950A86A20F9469CFC6D}, "a pickle without PyTorch's magic number at its"),
        ({}, {"magic": "x"}, "a pickle without PyTorch's magic number"),
        ({}, {"version": 1002}, "unsupported version of PyTorch's old format .only 1001"),
        ({}, {"machine": MACHINE | {"little_endian": False}}, "written on a big-endian machine"),
        ({"x": Tensor(ONE)}, {"keys": []}, "damaged .*storage 0 is not in the list of storages"),
        ({"x": Tensor(ONE)}, {"keys": ["0", "1"]}, "damaged .*storage 1 is listed, but no tensor"),
        ({"x": Tensor(ONE)}, {"keys": ["0", "0"]}, "damaged .*storage 0 is listed twice"),
        ({"x": Tensor(ONE)}, {"keys": {"0": 1}}, "damaged .*there is no list of storages"),
        ({"x": Tensor(ONE)}, {"keys": [["0"]]}, "damaged .*there is no list of storages"),
        ({"x": Tensor(ONE)}, {"sizes": 4}, "storage 0 has 4 elements and should have 3"),
        ({"x": Tensor(ONE)}, {"sizes": -1}, "storage 0 has -1 elements and should have 3"),
        ({"x": Tensor(ONE)}, {"sizes": 2**62}, "storage 0 has 4611686018427387904 elements"),
        ({"x": Tensor(ONE, 1)}, {}, "reaches element 3 of a storage of 3"),
        ({"x": Tensor(ONE, 0, (2**13, 2**12), (0, 0))}, {}, "33554432 elements of a storage of 3"),
        ({"x": Tensor(ONE, 0, (10**5000,), (1,))}, {}, "a pickle that cannot be read"),
        ([1, 2], {}, r"holds no state_dict \(it is a list\)"),
        ({}, {}, "holds no tensors"),
    ],
)
def test_damage(tmp_path, obj, options, sentence):
    with pytest.raises(UserError, match=rf"a\.pth .*{sentence}"):
        read(save_legacy(tmp_path / "a.pth", obj, **options))


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (2**62, r"cut short or damaged \(storage 0 of 4611686018427387904 elements needs"),
        (-1, "a pickle that cannot be read"),
        (2**200, "a pickle that cannot be read"),
    ],
)
def test_a_size_that_reference_and_record_agree_on(tmp_path, size, sentence):
    path = save_legacy(tmp_path / "a.pth", {"x": Tensor(Storage(ONE))})
    data = path.read_bytes()
    reference = pickle.dumps("cuda:0", 2)[2:-3] + b"q"  # then its place in the memo, then a size
    at = data.index(reference) + len(reference) + 1
    assert data[at : at + 2] == b"K\x03"
    claim = pickle.dumps(size, 2)[2:-1]
    data = data[:at] + claim + data[at + 2 :]
    data = data[:-20] + (size % 2**63).to_bytes(8, "little") + data[-12:]
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"a\.pth .*{sentence}"):
        read(path)


def test_two_references_that_differ(tmp_path):
    storage = Storage(ONE)
    state = {"x": Tensor(storage), "y": Tensor(Part(storage, 0, 1), 0, (1,), (1,))}
    path = save_legacy(tmp_path / "a.pth", state)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"FloatStorage", b"HalfStorage", 1))
    with pytest.raises(UserError, match="storage 0 is described twice, differently"):
        read(path)


def test_a_tar_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w:") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(UserError, match=r"a\.tar is a tar, as PyTorch 0\.1 wrote its files"):
        read(path)
