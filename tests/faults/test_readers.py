"""Data is read by threads: what fails there ends the run, and nothing is left when it is killed."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from tiny_run import rows, run, scan_folder, start

from hmgr_jax.data import regions
from hmgr_jax.training import loop

SCAN = {"data__source": "scan", "data__batching": "rows", "data__buckets": "16"}
SCAN |= {"eval__protocols": "plain", "eval__dev_protocols": "plain", "train__steps": 40}


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
    assert error.startswith(f"error: {root / 'train_ims.npy'} holds NaN or infinity in row 13")
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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux for the processes")
def test_a_killed_run_leaves_no_process_behind(tmp_path):
    process = start(tmp_path / "run", train__steps=2000)
    for line in process.stdout:
        if "step 5/" in line:
            break
    assert process.poll() is None
    assert _children(os.getpid())  # it can be seen at all
    assert _children(process.pid) == []
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
