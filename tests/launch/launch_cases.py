"""Commands of launch/ in processes of their own, against executables that only pretend."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"


def call(*words, path=None, **environment):
    """Run a command to its end; ``path`` is a folder of executables that go before all others."""
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=60,
        env=surroundings(path, environment),
        cwd=ROOT,
    )


def surroundings(path, environment):
    """This process's environment without a scheduler's, with ``path`` first and ``environment``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    if path is not None:
        kept["PATH"] = f"{path}{os.pathsep}{kept['PATH']}"
    return {**kept, **{k: str(v) for k, v in environment.items()}}


def local(*words):
    """``launch/local.py`` to its end."""
    return call(sys.executable, LAUNCH / "local.py", *words)


def executable(path, text):
    """Write an executable bash script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


def until(condition, seconds=30):
    """Wait until ``condition()`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def alive(number):
    """Whether a process runs (a dead one that nobody has waited for does not)."""
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def one_error(done, *parts):
    """The single sentence of a user's mistake, with exit code 2 and nothing on stdout."""
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
