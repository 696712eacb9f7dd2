"""OFF files become objects: broken ones are named, what was interrupted goes on."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from preparing import prepare
from tiny_run import ROOT

from hmgr_jax.data.generated.solids import CLASSES, make_solid
from hmgr_jax.data.generated.solids.__main__ import main as write_solids
from hmgr_jax.data.generated.solids.primitives import ball
from hmgr_jax.data.shapes3d.augment import Shaping
from hmgr_jax.data.shapes3d.mesh import edge_neighbours
from hmgr_jax.data.shapes3d.modelnet.joining import Folders
from hmgr_jax.data.shapes3d.modelnet.open import open_modelnet
from hmgr_jax.data.shapes3d.off import write_off
from hmgr_jax.errors import UserError
from hmgr_jax.preparation import modelnet_objects

pytest.importorskip("embreex")
SMALL = ("--points", "64", "--views", "3", "--size", "24", "--workers", "1")
SHAPING = Shaping(image_size=16, crop=24, points=32, faces=320, views=3)
TRAIN, TEST = 168, 48
BROKEN = {
    "arch/train/arch_000000.off": "",
    "bottle/train/bottle_000001.off": "OFF\n100 200 0\n0 0 0\n",
    "bowl/test/bowl_000002.off": "PLY\n",
    "chair/train/chair_000015.off": "OFF\n3 1 0\n0 0 0\n1 0 0\nnan 1 0\n3 0 1 2\n",
    "vase/test/vase_000011.off": "OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n",
}


def _tree(path, train=TRAIN, test=TEST):
    assert write_solids(["", "--out", str(path), "--train", str(train), "--test", str(test)]) == 0
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """216 files, of which five are broken and one has its counts glued to the first word."""
    found = _tree(tmp_path_factory.mktemp("raw") / "ModelNet12")
    for name, text in BROKEN.items():
        assert (found / name).is_file()
        (found / name).write_text(text)
    glued = found / "gear/train/gear_000005.off"
    glued.write_text(glued.read_text().replace("OFF\n", "OFF", 1))
    (found / "README.txt").write_text("not an object")
    return found


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """What an uninterrupted preparation makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert prepare("modelnet", "--source", source, "--out", out, *SMALL) == 0
    return out


def _objects(folder):
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("objects/*/*/*.npz"))}


def _contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*") if p.is_file() and p.name != ".lock"
    }  # fmt: skip


def test_all_but_the_broken_are_there(source, whole, capsys):
    assert len(list(source.rglob("*.off"))) == TRAIN + TEST
    made = _objects(whole)
    assert len(made) == TRAIN + TEST - len(BROKEN)
    assert "objects/gear/train/gear_000005.npz" in made
    for name in BROKEN:
        assert f"objects/{name.removesuffix('.off')}.npz" not in made
    lines = (whole / "left_out.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == sorted(BROKEN)
    assert all(str(source / line.split("\t")[0]) in line.split("\t")[1] for line in lines[:-1])
    listed = json.loads((whole / "manifest.json").read_text())
    assert listed["classes"] == list(CLASSES)
    assert {s: len(names) for s, names in listed["objects"].items()} == {"train": 165, "test": 46}
    assert prepare("--verify", whole) == 0
    assert "212 files" in capsys.readouterr().out
    path = made["objects/gear/train/gear_000005.npz"]
    path.touch()
    assert prepare("--verify", whole) == 0  # contents count
    os.utime(path, ns=(source.joinpath("gear/train/gear_000005.off").stat().st_mtime_ns,) * 2)


def test_broken_files_are_named_and_the_exit_code_is_0(source, tmp_path, capsys):
    some = tmp_path / "some"
    for name in (*BROKEN, "bowl/train/bowl_000002.off"):
        (some / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, some / name)
    command = ("modelnet", "--source", some, "--out", tmp_path / "out", *SMALL)
    assert prepare(*command) == 0
    out, err = capsys.readouterr()
    assert "holds objects of 1 classes: 1 of train." in out
    assert "left out as unreadable: 5." in out
    for name in BROKEN:
        assert name.rpartition("/")[2] in err or "no face with an area" in err
    (some / "bowl/train/bowl_000002.off").write_text("no")
    assert prepare(*command) == 2
    assert "None of the 6 objects can be prepared" in capsys.readouterr().err


def test_objects_as_training_opens_them(whole):
    data = open_modelnet(whole, SHAPING, Folders(dev=0.1))
    assert {role: len(split) for role, split in data.splits.items()} == {
        "train": 153, "dev": 12, "test": 46,
    }  # fmt: skip
    train = data.splits["train"]
    assert train.labels["image"].shape == (153, 12)
    names = train.ids["mesh"]
    k = names.index("table/table_000009")
    found = {m: source.gather(np.array([k])) for m, source in train.sources.items()}
    mesh = make_solid(0, "train", 9).mesh
    size = np.ptp(mesh.vertices, axis=0)
    corners = found["mesh"]["faces"][0, :, 3:12].reshape(-1, 3)
    extent = np.ptp(corners, axis=0)
    np.testing.assert_allclose(extent / extent[1], size / size[1], rtol=1e-4)  # y is up again
    points = found["point"]["points"][0]
    assert np.linalg.norm(points, axis=1).max() <= 1 + 1e-5
    assert (np.abs(points) <= np.abs(corners).max(0) + 1e-5).all()
    views = found["image"]["views"]
    assert views.shape == (1, 3, 16, 16, 3)
    assert views.min() < 1
    assert len(data.fingerprint) == 64


def test_interrupted_and_run_again_it_makes_only_what_is_missing(
    source, whole, tmp_path, monkeypatch, capsys
):
    command = ("modelnet", "--source", source, "--out", tmp_path / "out", *SMALL)
    asked, real = [], modelnet_objects.make_object

    def counted(task, making):
        asked.append(task.label)
        if len(asked) == stop:
            raise KeyboardInterrupt
        return real(task, making)

    monkeypatch.setattr(modelnet_objects, "make_object", counted)
    stop = 61
    assert prepare(*command) == 130
    before = {name: p.stat().st_ino for name, p in _objects(tmp_path / "out").items()}
    assert 50 < len(before) <= 60
    with pytest.raises(UserError, match="was not prepared completely"):
        open_modelnet(tmp_path / "out", SHAPING)
    first, stop = set(asked[:60]), None
    asked.clear()
    assert prepare(*command) == 0
    broken = first & set(BROKEN)
    assert len(asked) == TRAIN + TEST - 60 + len(broken)
    assert not (first - broken) & set(asked)
    after = _objects(tmp_path / "out")
    assert all(after[name].stat().st_ino == inode for name, inode in before.items())
    assert _contents(tmp_path / "out") == _contents(whole)
    asked.clear()
    assert prepare(*command) == 0  # all is there, and what is broken has not changed
    assert asked == []
    assert "Made in this run: 0; left out as unreadable: 5." in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_that_was_lost_changed_or_mended_is_made_again(source, whole, tmp_path, monkeypatch):
    raw, out = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(source, raw)
    shutil.copytree(whole, out)
    _objects(out)["objects/cross/train/cross_000004.npz"].unlink()
    write_off(raw / "star/test/star_000008.off", ball(1, 8, 6))
    write_off(raw / "chair/train/chair_000015.off", ball(1, 8, 6))
    asked, real = [], modelnet_objects.make_object
    monkeypatch.setattr(
        modelnet_objects, "make_object", lambda task, making: asked.append(task.label)
        or real(task, making)
    )  # fmt: skip
    assert prepare("modelnet", "--source", raw, "--out", out, *SMALL) == 0
    mended = {"cross/train/cross_000004.off", "star/test/star_000008.off"}
    assert set(asked) == mended | set(BROKEN)
    same = [n for n in _contents(whole) if n.endswith(".npz") and "star_000008" not in n]
    assert all(_contents(out)[name] == _contents(whole)[name] for name in same)
    assert "objects/chair/train/chair_000015.npz" in _objects(out)
    assert len(_objects(out)) == TRAIN + TEST - 4


def test_large_meshes_are_simplified_but_seen_whole(tmp_path):
    raw = tmp_path / "raw/ball/train"
    raw.mkdir(parents=True)
    write_off(raw / "ball_1.off", ball(3.0, 60, 60))
    command = (
        "--source",
        tmp_path / "raw",
        "--out",
        tmp_path / "out",
        "--faces",
        "500",
        "--up",
        "y",
    )
    assert prepare("modelnet", *command, *SMALL) == 0
    with np.load(tmp_path / "out/objects/ball/train/ball_1.npz") as found:
        assert found["points"].shape == (64, 3)
        assert 400 < len(found["face"]) <= 500
        assert found["neighbor_index"].shape == (len(found["face"]), 3)
        assert found["view_000.png"][:4] == b"\x89PNG"
        np.testing.assert_allclose(np.linalg.norm(found["points"], axis=1), 1, atol=0.01)
        corners = found["face"][:, 3:12].reshape(-1, 3, 3)
    _, index = np.unique(corners.reshape(-1, 3).round(5), axis=0, return_inverse=True)
    with np.load(tmp_path / "out/objects/ball/train/ball_1.npz") as found:
        np.testing.assert_array_equal(
            np.sort(found["neighbor_index"]), np.sort(edge_neighbours(index.reshape(-1, 3)))
        )


def test_rejects_unusable_sources(source, whole, tmp_path, refused):
    command = ("modelnet", "--source", source, "--out")
    refused("was begun with --views 3 --size 24", *command, whole, "--points", "64")
    refused("not made by hmgr_jax.prepare modelnet", *command, source, *SMALL)
    refused("--source is missing", "modelnet", "--out", tmp_path / "out")
    refused("--up is one of y, z", *command, tmp_path / "out", "--up", "x")
    refused("--views is 0", *command, tmp_path / "out", "--views", "0")
    (tmp_path / "none").mkdir()
    refused("no class/train/name.off", "modelnet", "--source", tmp_path / "none", "--out",
            tmp_path / "out", *SMALL)  # fmt: skip
    other = _tree(tmp_path / "other", train=12, test=12)
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    refused(("of which --source has no OFF file", "same --source"), "modelnet", "--source", other,
            "--out", copy, *SMALL)  # fmt: skip


@pytest.mark.slow  # three spawned Pythons
def test_processes_make_the_same_and_stop_at_a_signal(source, whole, tmp_path):
    """Two processes, stopped by SIGTERM, and again."""
    command = [sys.executable, "-m", "hmgr_jax.prepare", "modelnet", "--source", str(source)]
    command += ["--out", str(tmp_path / "out"), *SMALL, "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if len(_objects(tmp_path / "out")) >= 10:
            break
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "Stopped by SIGTERM" in err
    assert 10 <= len(_objects(tmp_path / "out")) < TRAIN + TEST - len(BROKEN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert _contents(tmp_path / "out") == _contents(whole)


@pytest.mark.slow  # three spawned Pythons
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="children are looked up in /proc")
def test_processes_end_where_the_command_was_killed(source, tmp_path):
    command = [sys.executable, "-m", "hmgr_jax.prepare", "modelnet", "--source", str(source)]
    command += ["--out", str(tmp_path / "out"), *SMALL, "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    for _ in range(3000):
        if len(_objects(tmp_path / "out")) >= 3:
            break
        assert process.poll() is None
        time.sleep(0.02)
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(listed) >= 2
    process.kill()
    process.wait()
    for _ in range(600):
        if not any(Path(f"/proc/{child}").is_dir() for child in listed):
            return
        time.sleep(0.05)
    raise AssertionError("a worker outlived the command")


@pytest.mark.slow  # six spawned Pythons
def test_an_object_that_brings_its_process_down(tmp_path, monkeypatch):
    """Others that were handed out with it are made all the same."""
    source = _tree(tmp_path / "raw", train=12, test=0)
    tasks = modelnet_objects.find_objects(source, tmp_path / "out")
    making = modelnet_objects.Making(points=8, views=1, size=8)
    monkeypatch.setattr(modelnet_objects, "make_object", fatal)
    found = dict(modelnet_objects.made(tasks, making, 2))
    assert len(found) == 12
    wrong = {task.name: why for task, why in found.items() if why}
    assert list(wrong) == ["gear/gear_000005"]
    assert "brought down the process" in wrong["gear/gear_000005"]
    assert all(task.is_done() for task, why in found.items() if not why)


def fatal(task, making):
    """As a library that crashes does it; imported by the processes."""
    if task.name == "gear/gear_000005":
        os._exit(1)
    return modelnet_objects.make_object(task, making)


def test_a_full_disk_is_not_the_fault_of_an_object(tmp_path, monkeypatch, refused):
    source = _tree(tmp_path / "raw", train=12, test=12)
    command = ("modelnet", "--source", source, "--out", tmp_path / "out", *SMALL)
    real, count = modelnet_objects.write_object, itertools.count()

    def full(*arguments):
        if next(count) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    monkeypatch.setattr(modelnet_objects, "write_object", full)
    refused(".npz cannot be written (No space left on device): it takes", *command)
    assert not (tmp_path / "out/manifest.json").exists()
    (tmp_path / "out/objects/.x.npz.1.tmp").touch()  # of a process that was killed
    monkeypatch.undo()
    assert prepare(*command) == 0
    assert (tmp_path / "out/left_out.txt").read_text() == ""
    assert not list((tmp_path / "out").rglob(".*.tmp"))
