"""Explaining pairs of tiny runs."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_run import run, scan_folder

from hmgr_jax.main import main

STEPS = 3
BOX = (0.1, 0.2, 0.6, 0.9)


def explain(workdir, image, caption, out, *more):
    """The exit code of the command."""
    flags = ["--mode=explain", f"--workdir={workdir}", f"--out={out}", *more]
    return main(["main", *flags, "--pair", image, caption])


def numbers(folder, name="attention"):
    """What it wrote."""
    return json.loads((folder / f"{name}.json").read_text())


@functools.cache
def trained_on_files():
    """A run on a folder of features with boxes, made once a process."""
    folder = Path(tempfile.mkdtemp(prefix="hmgr-jax-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    root = scan_folder(folder / "data")
    for name, count in (("train", 24), ("dev", 8), ("test", 8)):
        np.save(root / f"{name}_boxes.npy", np.tile(BOX, (count, 4, 1)).astype(np.float32))
    chosen = {"data__source": "scan", "data__batching": "rows", "data__root": root}
    chosen |= {"eval__protocols": "plain", "eval__dev_protocols": "plain", "train__steps": 2}
    assert run(folder / "run", model="imram", **chosen) == 0
    return folder / "run"


def pictures(folder, *names):
    """A folder of pictures, all of one colour."""
    folder.mkdir()
    for name in names:
        Image.new("RGB", (60, 40), (10, 200, 30)).save(folder / name)
    return folder
