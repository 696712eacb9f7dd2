"""Runs of the command on a few generated scenes, in this process or in one of its own."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from hmgr_jax.main import main
from hmgr_jax.training import recipe_file
from hmgr_jax.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[1]
WORLDS = str(Path(__file__).with_name("tiny_recipe.py"))


def arguments(workdir, *more, model="vse", recipe=WORLDS, **overrides):
    """The command line of a tiny run; ``train__lr=1`` stands for ``--config.train.lr=1``."""
    flags = [f"--config.{key.replace('__', '.')}={value}" for key, value in overrides.items()]
    return ["main", f"--config={recipe}:{model}", f"--workdir={workdir}", *flags, *more]


def config(**options):
    """The configuration of a tiny run."""
    _, *rest = arguments("unused", **options)
    overrides, others = recipe_file.split_overrides(rest)
    return recipe_file.load(others[0].removeprefix("--config="), overrides)


def run(workdir, *more, **options):
    """The exit code of a tiny run in this process."""
    return main(arguments(workdir, *more, **options))


def start(workdir, *more, **options):
    """A tiny run in a process of its own, on one device."""
    command = [sys.executable, "-m", "hmgr_jax.main", *arguments(workdir, *more, **options)[1:]]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"},
    )


class KilledError(BaseException):
    """Stands for SIGKILL in this process: nothing catches it."""


def kill_at_the_save_of(monkeypatch, step):
    """Until ``monkeypatch.undo()`` a run dies where it would save ``step``."""
    real = Checkpoints.save

    def save(self, at, *arguments):
        if at == step:
            raise KilledError
        real(self, at, *arguments)

    monkeypatch.setattr(Checkpoints, "save", save)


@functools.cache
def finished(model="vse"):
    """The folder of a finished run, made once a process: to be read or copied."""
    folder = Path(tempfile.mkdtemp(prefix="hmgr-jax-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    assert run(folder / "run", model=model) == 0
    return folder / "run"


def interrupted(workdir, of=None):
    """A copy of a run as a kill leaves it: rows up to the last step, whose save was lost."""
    shutil.copytree(of or finished(), workdir)
    (workdir / "results.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "12")
    (workdir / "digests" / "12.json").unlink()
    return workdir


def scan_folder(root, images=(24, 8, 8), captions=2, regions=4, features=6):
    """A folder in SCAN's layout: train, dev and test of so many images."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, count in zip(("train", "dev", "test"), images, strict=True):
        values = rng.standard_normal((count, regions, features)).astype(np.float16)
        np.save(root / f"{name}_ims.npy", values)
        lines = [f"picture {i % 5} of {c} words" for i in range(count) for c in range(captions)]
        (root / f"{name}_caps.txt").write_text("\n".join(lines) + "\n")
        (root / f"{name}_ids.txt").write_text("".join(f"{name}{i}.jpg\n" for i in range(count)))
    return root


def results(workdir):
    return json.loads((workdir / "results.json").read_text())


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def files(folder):
    """{path: (bytes, time of the last change)} of everything in a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
