"""Rows of .npy files against numpy, in threads, pickled, and of files that are wrong."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.files import npy_rows
from hmgr_jax.files.npy_rows import NpyRows


@pytest.fixture
def saved(tmp_path):
    array = np.random.default_rng(0).random((50, 3, 4)).astype(np.float16)
    np.save(tmp_path / "x.npy", array)
    return tmp_path / "x.npy", array


@pytest.mark.parametrize(
    "rows", [[0], [49, 0, 0, 7], [3, 4, 5, 6], [9, 10, 2, 3, 4, 4, 5, 1, 0], list(range(50)), []]
)
def test_gather_is_numpy_indexing(saved, rows):
    path, array = saved
    found = NpyRows(path).gather(np.array(rows, np.int64))
    assert found.dtype == array.dtype
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array[rows])


@pytest.mark.parametrize(
    ("stored", "read"),
    [("<f8", "=f4"), (">f8", "=f4"), (">f4", "=f4"), (">f2", "=f2"), (">i8", "=i8"), ("|u1", "u1")],
)
def test_any_byte_order_and_wide_floats_are_read(tmp_path, stored, read):
    array = np.arange(24).reshape(4, 3, 2).astype(stored)
    np.save(tmp_path / "x.npy", array)
    rows = NpyRows(tmp_path / "x.npy")
    found = rows.gather(np.array([3, 0, 1]))
    assert rows.dtype == found.dtype == np.dtype(read)
    assert rows.nbytes == found.dtype.itemsize * array.size
    np.testing.assert_array_equal(found, array[[3, 0, 1]])


def test_runs_of_rows_are_read_in_one_call(saved, monkeypatch):
    path, _ = saved
    calls = []
    monkeypatch.setattr(
        NpyRows, "_read", lambda _, buffer, offset: calls.append((len(buffer), offset))
    )
    rows = NpyRows(path)
    rows.gather(np.array([5, 6, 7, 2, 2, 3]))
    assert [size // rows.row_bytes for size, _ in calls] == [3, 1, 2]


def test_a_long_read_is_made_in_parts(saved, monkeypatch):
    path, array = saved
    monkeypatch.setattr(npy_rows, "_MOST_BYTES", 7)
    np.testing.assert_array_equal(NpyRows(path).gather(np.arange(50)), array)


@pytest.mark.parametrize("rows", [[-1], [50]])
def test_rows_outside(saved, rows):
    with pytest.raises(IndexError, match="from 0 to 49"):
        NpyRows(saved[0]).gather(np.array(rows))


def test_version_two_header_and_plain_rows(tmp_path):
    with (tmp_path / "v2.npy").open("wb") as file:
        np.lib.format.write_array(file, np.arange(6.0), version=(2, 0))
    np.testing.assert_array_equal(NpyRows(tmp_path / "v2.npy").gather(np.array([5, 1])), [5.0, 1.0])


def test_a_pickle_holds_only_the_path(saved):
    path, array = saved
    rows = NpyRows(path)
    rows.gather(np.array([1]))
    data = pickle.dumps(rows)
    assert len(data) < 400
    np.testing.assert_array_equal(pickle.loads(data).gather(np.array([3])), array[[3]])


def test_threads_share_one_handle(saved):
    path, array = saved
    rows = NpyRows(path)
    orders = [np.random.default_rng(i).permutation(50) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for order, found in zip(orders, pool.map(rows.gather, orders), strict=True):
            np.testing.assert_array_equal(found, array[order])


def test_header_and_rows_are_of_one_file_while_it_is_replaced(saved, monkeypatch):
    path, array = saved
    real = npy_rows.read_header

    def replaced_meanwhile(file):
        header = real(file)
        np.save(path.with_name("new.npy"), np.zeros_like(array))
        path.with_name("new.npy").replace(path)
        return header

    monkeypatch.setattr(npy_rows, "read_header", replaced_meanwhile)
    np.testing.assert_array_equal(NpyRows(path).gather(np.arange(50)), array)


def test_a_truncated_file_is_refused_with_both_sizes(saved):
    path, _ = saved
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(
        UserError, match=rf"x\.npy is truncated.* {len(whole)} .* {len(whole) - 10}"
    ):
        NpyRows(path)


def test_a_file_shortened_later_is_refused(saved):
    path, _ = saved
    rows = NpyRows(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="shortened after it was opened"):
        rows.gather(np.array([49]))


def test_other_files_are_refused(tmp_path):
    def refused(sentence):
        with pytest.raises(UserError, match=sentence):
            NpyRows(tmp_path / "x.npy")

    refused("cannot be read")
    for content in (
        b"",
        b"\x93NUMPY",
        b"not an array",
        b"\x93NUMPY\x01\x00\x10\x00{'descr'",
    ):
        (tmp_path / "x.npy").write_bytes(content)
        refused("does not begin with a .npy header")
    np.save(tmp_path / "x.npy", np.asfortranarray(np.zeros((3, 4))))
    refused("Fortran order")
    np.save(tmp_path / "x.npy", np.array([{}, {}]), allow_pickle=True)
    refused("pickled objects")
    np.save(tmp_path / "x.npy", np.float32(1.0))
    refused("a single number")


@pytest.mark.slow
def test_a_file_of_20_gb_does_not_enter_memory(tmp_path):
    """A sparse file of the size of COCO's features: rows from all over it, under 1 GB resident."""
    rows = 140_000
    header = {"descr": "<f2", "fortran_order": False, "shape": (rows, 36, 2048)}
    with (tmp_path / "big.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + rows * 36 * 2048 * 2)
    program = f"""
import numpy as np
from hmgr_jax.benchmarks.memory import peak_memory_bytes
from hmgr_jax.data.regions.regions import RegionSource
source = RegionSource({str(tmp_path / "big.npy")!r})
random = np.random.default_rng(0)
for _ in range(30):
    source.gather(random.integers(0, {rows}, 128))
print(peak_memory_bytes() // 2**20)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert int(done.stdout) < 1000
