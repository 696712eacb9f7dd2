"""Files of others are read within bounds, and from nowhere else."""

import io
import itertools
import json
import zipfile

import h5py
import numpy as np
import pytest

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.files.arrays import open_arrays, read_npy, read_npz
from hmgr_jax.files.hdf5 import Dataset, open_hdf5
from hmgr_jax.files.npy_rows import LARGEST, check_features
from hmgr_jax.files.plain_pickle import load_pickle
from hmgr_jax.files.reading import read_json, read_object


def _npy(shape, descr="<f4", data=b""):
    file = io.BytesIO()
    described = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue() + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x01\0\xff\xff",
        _npy((2**40,)),
        _npy((2**62, 2**62)),
        _npy((-1, 4)),
        _npy((True,)),
        _npy((1,) * 60, data=bytes(4)),
        _npy((3,), "|O", bytes(24)),
        _npy((4, 4), data=bytes(63)),
        b"\x93NUMPY\x01\0" + (5000).to_bytes(2, "little") + b"(" * 5000,
    ],
)
def test_an_array_that_cannot_be_is_refused(tmp_path, data):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npy cannot be read as \.npy or \.npz .*again\."):
        read_npy(path, "copy it again.")


def test_an_array_that_unpacks_to_gigabytes_is_refused_where_it_is_read(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", _npy((4,), data=bytes(16)))
        with archive.open("y.npy", "w", force_zip64=True) as file:
            file.write(_npy((75_000_000,)))
            for _ in range(300):
                file.write(bytes(1_000_000))
    with open_arrays(path, "again.") as arrays:
        assert arrays["y"].shape == (75_000_000,)
        np.testing.assert_array_equal(np.asarray(arrays["x"]), np.zeros(4))
        with pytest.raises(UserError, match=r"y, cannot be read .* 300,000,000 bytes, of which"):
            np.asarray(arrays["y"])
    with pytest.raises(UserError, match="holds x, y where z were expected: again"):
        read_npz(path, "again.", ["z"])


def test_json_that_is_too_deep_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"a\.json is not JSON \(it is nested too deeply\): again"):
        read_json(tmp_path / "a.json", "again.")
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps({"a": 1}))
    assert read_json(tmp_path / "a.json") == read_object(tmp_path / "a.json", "again.") == {"a": 1}


@pytest.mark.parametrize("text", ["null", "[]", "3"])
def test_json_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json holds a \w+ instead of an object: again\."):
        read_object(tmp_path / "a.json", "again.")


def _outside(file, other):
    file.create_dataset("x", shape=(4,), dtype="u1", external=[(str(other), 0, 4)])


def _link(file, other):
    file["x"] = h5py.ExternalLink(str(other), "secret")


def _link_behind_a_link(file, other):
    file["y"] = h5py.ExternalLink(str(other), "/")
    file["x"] = h5py.SoftLink("/y/secret")


def _virtual(file, other):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource(str(other), "secret", (4,))
    file.create_virtual_dataset("x", layout)


def _circle(file, other):
    file["x"] = h5py.SoftLink("/x")


def _multiplied(file, other):
    file["l0"] = h5py.SoftLink(".")
    for k in range(1, 6):
        file[f"l{k}"] = h5py.SoftLink("/".join([f"l{k - 1}"] * 6))
    file["x"] = h5py.SoftLink("l5/good")  # 7,776 links; ten levels more would take years


def _nowhere(file, other):
    file["x"] = h5py.SoftLink("/z")


def _unwritten(file, other):
    file.create_dataset("x", shape=(10**9, 5), dtype="u1", chunks=(10**6, 5))


def _large_chunk(file, other):
    file.create_dataset("x", shape=(2, 10**9), dtype="u1", chunks=(1, 10**9))


def _empty(file, other):
    file.create_dataset("x", dtype="f4")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_outside, "read from another file"),
        (_link, "a link to another file"),
        (_link_behind_a_link, "a link to another file"),
        (_virtual, "read from another file"),
        (_circle, "lead in a circle"),
        (_multiplied, "more than 64"),
        (_nowhere, "leads to /z, which is not there"),
        (_unwritten, "5,000,000,000 bytes, of which 0"),
        (_large_chunk, "1,000,000,000 bytes, of which 0"),
        (_empty, "it is empty"),
    ],
)
def test_hdf5_that_reads_elsewhere_or_too_much_is_refused(tmp_path, make, said):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = np.arange(4, dtype="u1")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["good"] = np.ones(3)
        make(file, tmp_path / "secret.h5")
    file = open_hdf5(tmp_path / "a.h5")
    np.testing.assert_array_equal(np.asarray(file["good"]), np.ones(3))
    with pytest.raises(UserError, match=f"a.h5, .*{said}"):
        np.asarray(file["x"][0] if make is _large_chunk else file["x"])


def test_every_group_of_hdf5_is_visited_once(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        groups = [file.create_group(f"g{k}") for k in range(40)]
        for one, other in itertools.pairwise(groups):
            one["a"] = one["b"] = other
        groups[-1]["x"] = groups[-1]["y"] = [1, 2]
        groups[-1]["top"] = file["/"]
    found = dict(open_hdf5(tmp_path / "a.h5").walk())
    assert [name.rpartition("/")[2] for name in found] == ["x", "y"]
    assert all(isinstance(dataset, Dataset) for dataset in found.values())


_SHARED = b")" + b"".join(b"q%ch%c\x86" % (k, k) for k in range(40))
_DEEP = b")" + b"\x85" * 1_000_000


@pytest.mark.parametrize("key", [_SHARED, _DEEP], ids=["shared", "deep"])
@pytest.mark.parametrize(
    "around", [b"}%bK\x01s", b"}(%bK\x01u", b"(%bK\x01d", b"\x8f(%b\x90", b"(%b\x91"]
)
def test_nested_keys_of_pickles_are_refused(key, around):
    with pytest.raises(UserError, match=r"a\.pth .*neither text nor a number"):
        load_pickle(b"\x80\x04" + around.replace(b"%b", key) + b".", "a.pth", {})


def test_features_whose_norm_overflows_are_refused():
    check_features(np.array([[LARGEST, -LARGEST]], np.float32), str, "")
    for value, error in ((1e20, UserError), (-1e30, UserError), (np.nan, FoundNonFinite)):
        with pytest.raises(error, match=r"row 1 holds (a number of 1e|NaN)"):
            check_features(np.array([[1], [value]]), lambda row: f"row {row}", "")
