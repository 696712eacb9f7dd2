"""Half-done preparations go on, nothing is overwritten, and a manifest vouches for the rest."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from preparing import prepare, values
from tiny_run import ROOT, files

from hmgr_jax.files.workdir import lock
from hmgr_jax.preparation import plan, scan_source, writing
from hmgr_jax.preparation.plan import Array
from hmgr_jax.preparation.row_file import RowFile

IMAGES = 10


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    for split, first in (("train", 0), ("dev", 20)):
        rows = range(first, first + IMAGES)
        np.save(root / f"{split}_ims.npy", np.stack([values(n) for n in rows]))
        (root / f"{split}_caps.txt").write_text("".join(f"a picture {n}\n" for n in rows))
    return root


@pytest.fixture
def whole(source, tmp_path):
    """What an uninterrupted preparation makes."""
    assert prepare("scan", "--source", source, "--out", tmp_path / "whole") == 0
    return tmp_path / "whole"


def _contents(folder):
    return {name: data for name, (data, _) in files(folder).items()}


class KilledError(BaseException):
    """Stands for SIGKILL: the record is not saved any more."""


def _killed_after(monkeypatch, chunks):
    """The process dies while it writes one more chunk; chunks are two rows."""
    monkeypatch.setattr(plan, "CHUNK_BYTES", 2 * values(0).nbytes)
    monkeypatch.setattr(writing, "SAVE_SECONDS", 0)
    real, seen = writing._write_chunk, []

    def write(chunk, found):
        seen.append(chunk)
        if len(seen) > chunks:
            monkeypatch.setattr(writing, "_save", lambda *_: None)
            raise KilledError
        real(chunk, found)

    monkeypatch.setattr(writing, "_write_chunk", write)


def _kill(monkeypatch, chunks, command):
    with monkeypatch.context() as patch:
        _killed_after(patch, chunks)
        with pytest.raises(KilledError):
            prepare(*command)


@pytest.mark.parametrize("chunks", [0, 3, 7])
def test_a_killed_preparation_goes_on(source, whole, tmp_path, monkeypatch, chunks):
    out = tmp_path / "out"
    command = ("scan", "--source", source, "--out", out)
    _kill(monkeypatch, chunks, command)
    assert not out.exists()
    record = json.loads((tmp_path / "out.partial/.progress.json").read_text())
    assert sum(split["rows"] for split in record["written"].values()) == 2 * chunks
    read, real = [], scan_source.ScanSource._read

    def reading(self, name, found, images):
        read.extend((name, i) for i in images.tolist())
        return real(self, name, found, images)

    monkeypatch.setattr(scan_source.ScanSource, "_read", reading)
    assert prepare(*command) == 0
    everything = [(name, i) for name in ("train", "dev") for i in range(IMAGES)]
    assert read == everything[2 * chunks :]
    assert _contents(out) == _contents(whole)
    assert not (tmp_path / "out.partial").exists()


def test_killed_twice_and_a_file_lost(source, whole, tmp_path, monkeypatch):
    command = ("scan", "--source", source, "--out", tmp_path / "out")
    _kill(monkeypatch, 2, command)
    _kill(monkeypatch, 5, command)
    (tmp_path / "out.partial/train_ims.npy").unlink()
    assert prepare(*command) == 0
    assert _contents(tmp_path / "out") == _contents(whole)


def test_half_of_another_preparation_is_refused(source, tmp_path, monkeypatch, refused):
    command = ("scan", "--source", source, "--out", tmp_path / "out")
    _kill(monkeypatch, 2, command)
    before = _contents(tmp_path / "out.partial")
    refused("out.partial is another preparation half done", *command, "--splits", "train")
    os.utime(source / "dev_ims.npy", (1, 1))
    refused(("out.partial is another", "sources", "remove it to begin anew"), *command)
    assert {k: v for k, v in _contents(tmp_path / "out.partial").items() if k != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }
    (tmp_path / "out.partial/.progress.json").write_text("{")
    refused(".progress.json is damaged", *command)
    (tmp_path / "out.partial/.progress.json").unlink()
    refused("but no .progress.json", *command)


def test_what_is_there_is_not_overwritten(source, whole, tmp_path, refused, capsys):
    before = files(whole)
    assert prepare("scan", "--source", source, "--out", whole) == 0
    assert "is already complete" in capsys.readouterr().out
    refused("exists and is not this preparation", "scan", "--source", source, "--out", source)
    command = ("scan", "--source", source, "--out", whole, "--splits", "dev")
    refused("exists and is not this preparation", *command)
    (tmp_path / "file").write_text("mine")
    refused("exists and is not", "scan", "--source", source, "--out", tmp_path / "file")
    assert files(whole) == before
    (tmp_path / "empty").mkdir()
    assert prepare("scan", "--source", source, "--out", tmp_path / "empty") == 0


def test_one_at_a_time(source, tmp_path, refused):
    with lock(tmp_path / "out.partial"):
        refused(
            ("in use by process", "another --out"),
            *("scan", "--source", source, "--out", tmp_path / "out"),
        )


def test_a_disk_without_room(source, tmp_path, refused, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refused(("out.partial needs", "GB are free"), "scan", "--source", source, "--out",
            tmp_path / "out")  # fmt: skip


def test_verify(whole, tmp_path, refused, capsys):
    assert prepare("--verify", whole) == 0
    assert f"{whole} is as its manifest says: 6 files" in capsys.readouterr().out
    path = whole / "train_ims.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(("train_ims.npy has sha256", "it has changed"), "--verify", whole)
    path.write_bytes(data[:-1])
    refused(("train_ims.npy has", "where manifest.json says"), "--verify", whole)
    path.unlink()
    refused("train_ims.npy is missing where", "--verify", whole)
    (whole / "train_boxes.npy").write_bytes(b"")
    refused("train_boxes.npy is not in manifest.json", "--verify", whole)
    (whole / "manifest.json").write_text("{}")
    refused("manifest.json is damaged", "--verify", whole)
    refused("manifest.json cannot be read", "--verify", tmp_path / "none")


def test_rows_in_any_order_make_the_file_that_numpy_saves(tmp_path):
    want = np.random.default_rng(0).random((7, 3, 2)).astype(np.float16)
    file = RowFile(tmp_path / "a.npy", 7, Array((3, 2), np.dtype(np.float16)))
    assert file.fresh
    for rows in ([5, 6, 1], [0], [3, 4, 2]):
        file.write(np.array(rows), want[rows])
    with pytest.raises(ValueError, match="given for 1 rows"):
        file.write(np.array([0]), want[:2])
    file.close()
    np.save(tmp_path / "b.npy", want)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    again = RowFile(tmp_path / "a.npy", 7, Array((3, 2), np.dtype(np.float16)))
    assert not again.fresh
    again.close()
    other = RowFile(tmp_path / "a.npy", 7, Array((2, 3), np.dtype(np.float16)))
    assert other.fresh
    other.close()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_keep_what_is_written(source, whole, tmp_path, number, code):
    command = [sys.executable, "-c", SLOWLY, "scan", "--source", str(source)]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    record = tmp_path / "out.partial" / ".progress.json"
    _wait(lambda: (tmp_path / "out.partial/dev_ims.npy").exists() and record.exists(), process)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.count("\n") == 1
    assert err.startswith("error: Stopped by")
    rows = json.loads(record.read_text())["written"]["train"]["rows"]
    assert 0 < rows < IMAGES
    assert prepare("scan", "--source", source, "--out", tmp_path / "out") == 0
    assert _contents(tmp_path / "out") == _contents(whole)


SLOWLY = """
import sys, time
from hmgr_jax import prepare
from hmgr_jax.preparation import plan, writing

plan.CHUNK_BYTES = 1
write = writing._write_chunk
writing._write_chunk = lambda *found: (time.sleep(0.5), write(*found))
sys.exit(prepare.main(sys.argv))
"""


def _wait(ready, process, seconds=60):
    for _ in range(seconds * 20):
        if ready():
            return
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError("nothing happened")


def test_the_command_line(capsys, refused):
    assert prepare("--help") == 0
    assert prepare() == 0
    assert "base64 TSV of bottom-up attention" in capsys.readouterr().out
    assert prepare("scan", "--help") == 0
    assert "--captions-per-image INT" in capsys.readouterr().out
    refused("--out is missing", "scan", "--source", "x")
    refused("Argument --verify: expected one argument", "--verify")
