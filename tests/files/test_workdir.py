"""One run at a time in a folder, whatever became of the one before; JSON whole or not at all."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import lock, temporary_for, write_json_atomic, write_npy_atomic

HOLDER = """
import sys, time
from pathlib import Path
from hmgr_jax.files.workdir import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_told_who_holds_the_folder(holder, tmp_path):
    with (
        pytest.raises(UserError, match=f"process {holder.pid} on {socket.gethostname()}"),
        lock(tmp_path),
    ):
        pytest.fail("two runs in one folder")
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == holder.pid


@pytest.mark.slow
def test_the_lock_of_a_killed_run_is_free(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_the_lock_ends_with_its_block_also_by_an_error(tmp_path):
    with pytest.raises(KeyError), lock(tmp_path / "new" / "run"):
        raise KeyError
    with lock(tmp_path / "new" / "run"):
        pass


def test_only_one_lock_in_one_process_too(tmp_path):
    with (
        lock(tmp_path),
        pytest.raises(UserError, match=f"process {os.getpid()}"),
        lock(tmp_path),
    ):
        pytest.fail("two runs in one folder")


def test_a_holder_that_has_not_signed_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with lock(tmp_path), pytest.raises(UserError, match="in use by another run"), lock(tmp_path):
        pytest.fail("two runs in one folder")


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "results.json"
    write_json_atomic(path, {"metrics": {"i2t/R@1": 50.5}, "model": "hmgr"})
    assert json.loads(path.read_text()) == {"metrics": {"i2t/R@1": 50.5}, "model": "hmgr"}
    write_json_atomic(path, [1])
    assert path.read_text() == "[\n  1\n]\n"


@pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": float("inf")}, {"a": object()}])
def test_values_outside_json_leave_the_old_file(tmp_path, bad):
    path = tmp_path / "results.json"
    write_json_atomic(path, 1)
    with pytest.raises((ValueError, TypeError)):
        write_json_atomic(path, bad)
    assert (path.read_text(), os.listdir(tmp_path)) == ("1\n", ["results.json"])


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_json_atomic(path, 1)

    def fail(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_json_atomic(path, 2)
    assert (path.read_text(), os.listdir(tmp_path)) == ("1\n", ["results.json"])


@pytest.mark.parametrize("left", ["file", "link", "folder"])
def test_what_a_killed_process_of_the_same_id_has_left_is_replaced(tmp_path, left):
    other = tmp_path / f".new.{os.getpid()}.tmp"
    if left == "file":
        other.write_text("half")
    elif left == "link":
        other.symlink_to(tmp_path / "gone")
    else:
        (other / "deep").mkdir(parents=True)
    with temporary_for(tmp_path / "new") as temporary:
        assert not os.path.lexists(temporary)
        temporary.mkdir()
        temporary.rename(tmp_path / "new")
    assert os.listdir(tmp_path) == ["new"]


def test_an_error_of_the_system_names_what_was_to_be_written(tmp_path):
    with pytest.raises(OSError, match="none/index") as error:
        write_json_atomic(tmp_path / "none" / "index", 1)
    assert error.value.filename == str(tmp_path / "none" / "index")
    with (
        pytest.raises(OSError, match="current") as error,
        temporary_for(tmp_path / "current") as temporary,
    ):
        (temporary / "in").symlink_to(tmp_path)
    assert error.value.filename.startswith(str(tmp_path))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((0, 4), np.int8),
        np.asfortranarray(np.arange(6).reshape(3, 2)),
        np.array([True, False]),
    ],
)
def test_arrays_come_back(tmp_path, array):
    write_npy_atomic(tmp_path / "a.npy", array)
    found = np.load(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_a_full_disk_leaves_no_short_array(tmp_path):
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))
    try:
        with pytest.raises(OSError, match=r"a\.npy"):
            write_npy_atomic(tmp_path / "a.npy", np.zeros(300, np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []
