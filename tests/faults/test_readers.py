"""What fails in threads or processes that read data ends the run; none outlives a killed run."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_run import rows, run, scan_folder, start

from hmgr_jax.data.regions import regions
from hmgr_jax.training import loop

pytestmark = pytest.mark.slow

SCAN = {"data__source": "scan", "data__batching": "rows", "data__buckets": "16"}
SCAN |= {"eval__protocols": "plain", "eval__dev_protocols": "plain"}
LONG = {"train__steps": 40, "train__eval_steps": 20, "train__save_steps": 4}
"""More steps than are read ahead."""
SCAN |= LONG


def _goes_on_when_mended(root, copy, workdir):
    """The file put back, the run ends with all its steps."""
    shutil.copy2(copy, root / "train_ims.npy")
    assert run(workdir, **SCAN, data__root=root) == 0
    assert len([row for row in rows(workdir) if "loss" in row]) == 40


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """(data, a copy of its features) that is treated as if it were large."""
    monkeypatch.setattr(regions, "SCAN_BELOW", 0)
    root = scan_folder(tmp_path / "data")
    copy = tmp_path / "copy.npy"
    shutil.copy2(root / "train_ims.npy", copy)
    return root, copy


def test_a_feature_file_that_is_shortened_under_a_run(folder, tmp_path, monkeypatch, capsys):
    (root, copy), workdir = folder, tmp_path / "run"
    real, count = loop.shard, iter(range(1, 1000))

    def shard(mesh, batch):
        if next(count) == 6:
            os.truncate(root / "train_ims.npy", copy.stat().st_size - 100)
        return real(mesh, batch)

    monkeypatch.setattr(loop, "shard", shard)
    assert run(workdir, **SCAN, data__root=root) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {root / 'train_ims.npy'} ended at byte")
    monkeypatch.undo()
    assert list((workdir / "checkpoints").glob("[0-9]"))
    _goes_on_when_mended(root, copy, workdir)


def test_a_feature_that_is_found_to_be_nan_when_it_is_read(folder, tmp_path, capsys):
    (root, copy), workdir = folder, tmp_path / "run"
    features = np.load(root / "train_ims.npy")
    features[13, 1, 2] = np.nan
    np.save(root / "train_ims.npy", features)
    assert run(workdir, **SCAN, data__root=root) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(
        f"error: {root / 'train_ims.npy'}, row 13 (counted from 0), holds NaN or infinity"
    )
    _goes_on_when_mended(root, copy, workdir)


def _children(pid):
    """Processes whose parent is ``pid``."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(pid):
            found.append(int(stat.parent.name))
    return found


def _until(process, words):
    for line in process.stdout:
        if words in line:
            break
    assert process.poll() is None


of_linux = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="asks Linux for the processes"
)


@of_linux
def test_a_killed_run_leaves_no_process_behind(tmp_path):
    process = start(tmp_path / "run", train__steps=2000)
    _until(process, "step 5/")
    assert _children(os.getpid())  # it can be seen at all
    assert _children(process.pid) == []
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _workers(process):
    """The processes that read data; another child only tracks shared memory."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in _children(process.pid)}
    return [pid for pid, command in commands.items() if "spawn_main" in command]


@of_linux
def test_workers_end_with_a_killed_run(tmp_path):
    process = start(tmp_path / "run", train__steps=100000, data__workers=2)
    _until(process, "step 5/")
    workers = _workers(process)
    assert len(workers) == 2
    for pid in workers:  # as Ctrl-C and clusters do, which signal every process
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    _until(process, "step 10/")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    for _ in range(100):
        if not any(map(_alive, workers)):
            break
        time.sleep(0.1)
    assert not any(map(_alive, workers))


@of_linux
def test_a_worker_that_dies_ends_the_run_which_goes_on_later(tmp_path):
    options = LONG | {"data__worlds__train": 64}
    process = start(tmp_path / "run", data__workers=2, **options)
    _until(process, "step 5/")
    os.kill(_workers(process)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert "error: A data worker process ended with code -9" in errors
    assert run(tmp_path / "run", **options) == 0
    assert run(tmp_path / "whole", **options) == 0
    same = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("run", "whole")]
    assert same[0] == same[1]
