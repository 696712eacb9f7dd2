"""Whether a run that is killed again and again ends as one that nothing happened to."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.soak_phases import Pace, last_step, phase
from hmgr_jax.errors import UserError

RECIPE = Path(__file__).with_name("soak_recipe.py")
WRITTEN = ("metrics.jsonl", "results.json")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
UNGUARDED = ("starting", "finishing")
"""Where SIGTERM may end a process at once: it is importing, or has written its results."""
BEFORE_STEPS = ("starting", "compiling")
PATIENCE = 1200.0
"""Seconds in which a process has to save and end after SIGTERM, on a busy machine too."""


def run(kills: int = 20, seed: int = 0, model: str = "vse", folder: str = "") -> dict[str, Any]:
    """Kill a small run on generated worlds at random moments, ``kills`` times, and resume it.

    The moments are uniform over the time that a start would take to the end of the run, so they
    hit importing, opening, restoring, training, evaluating and saving; the signals are SIGKILL and
    SIGTERM in turn. A run that ends in between, and the last one, is compared byte for byte with
    one that nothing happened to, and a fresh one is begun. On CPU, where runs are exact.
    ``folder`` is where the temporary folder goes; how far it is goes to standard error.

    Returns:
        a row for JSON: kills by signal and by what the run was doing, runs that finished,
        ``differences`` of their metrics and results, ``damaged`` checkpoints, and ``problems``,
        sentences that are none where all is well (the command then ends with 0).
    """
    if kills < 1:
        raise UserError(f"--kills is {kills}: ask for at least one.")
    with tempfile.TemporaryDirectory(dir=folder or None) as root:
        return _Soak(Path(root), model, random.Random(seed)).row(kills)


class _Soak:
    """The runs of one soak, one after another, in folders below ``root``."""

    def __init__(self, root: Path, model: str, draw: random.Random) -> None:
        self.root, self.model, self.draw = root, model, draw
        self.signals: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.finished = self.differences = self.damaged = 0
        self.problems: list[str] = []

    def row(self, kills: int) -> dict[str, Any]:
        """Do it."""
        began = time.monotonic()
        self._let_finish(self.root / "first")  # fills the compile cache
        self.pace = self._measure(self.root / "unbroken")
        self._compare(self.root / "first")
        while (done := sum(self.signals.values())) < kills and not self.problems:
            print(f"{done}/{kills} kills, {self.finished} runs finished", file=sys.stderr)
            self._kill(SIGNALS[done % len(SIGNALS)])
        if self._current().exists() and not self.problems:
            self._let_finish(self._current())
            self._end_of(self._current())
        return {
            "benchmark": "soak",
            "model": self.model,
            "kills": sum(self.signals.values()),
            "signals": dict(self.signals),
            "killed_while": dict(self.phases.most_common()),
            "runs_finished": self.finished,
            "differences": self.differences,
            "damaged": self.damaged,
            "problems": self.problems,
            "seconds_of_phases": dataclasses.asdict(self.pace),
            "seconds": time.monotonic() - began,
        }

    def _current(self) -> Path:
        return self.root / f"run{self.finished}"

    def _start(self, workdir: Path) -> subprocess.Popen[bytes]:
        """The command of a run; what it says goes to ``WORKDIR.out`` and ``WORKDIR.err``."""
        package = str(Path(__file__).parents[2])
        command = [sys.executable, "-m", "hmgr_jax.main", f"--config={RECIPE}:{self.model}"]
        changed = {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]),
            "JAX_COMPILATION_CACHE_DIR": str(self.root / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        with _said(workdir).open("wb") as out, _complained(workdir).open("wb") as errors:
            return subprocess.Popen(
                [*command, f"--workdir={workdir}"],
                stdout=out,
                stderr=errors,
                env=os.environ | changed,
            )

    def _measure(self, workdir: Path) -> Pace:
        """Let a run finish and look when it makes its first step, its last one, and ends."""
        began, process = time.monotonic(), self._start(workdir)
        stepped = trained = 0.0
        while process.poll() is None:
            doing, now = phase(workdir, _said(workdir)), time.monotonic() - began
            stepped = stepped or (0.0 if doing in BEFORE_STEPS else now)
            trained = trained or (now if doing == "finishing" else 0.0)
            time.sleep(0.02)
        if process.returncode:
            self._problem(workdir, f"a run that was left alone ended with {process.returncode}")
        return Pace(stepped, trained - stepped, time.monotonic() - began - trained)

    def _until_a_moment(self, process: subprocess.Popen[bytes], workdir: Path) -> int:
        """Wait for a moment at random in what is left of the run; its exit code.

        Seconds after a step are longer where this start was slower than the one that was measured.

        Raises:
            subprocess.TimeoutExpired: the moment has come and the run has not ended.
        """
        step, seconds = self.pace.moment(self.draw, self.reached)
        began, slower = time.monotonic(), 0.0
        while step and process.poll() is None:
            if phase(workdir, _said(workdir)) not in BEFORE_STEPS:
                slower = slower or (time.monotonic() - began) / (self.pace.first_step or 1.0)
                if last_step(workdir) >= step:
                    break
            time.sleep(0.02)
        return process.wait(seconds * (slower or 1.0))

    def _let_finish(self, workdir: Path) -> None:
        code = self._start(workdir).wait()
        if code:
            self._problem(workdir, f"a run that was left alone ended with {code}")

    def _kill(self, number: signal.Signals) -> None:
        """Start or resume the current run and send it a signal at a random moment."""
        workdir = self._current()
        self.reached = last_step(workdir)
        process = self._start(workdir)
        try:
            code: int | None = self._until_a_moment(process, workdir)
        except subprocess.TimeoutExpired:
            doing = phase(workdir, _said(workdir))
            process.send_signal(number)
            code = self._await(process)
            self.signals[number.name] += 1
            self.phases[doing] += 1
            saved = number == signal.SIGTERM and code == 0
            ended = code == -number and (number == signal.SIGKILL or doing in UNGUARDED)
            if not saved and not ended:
                self._problem(workdir, f"{number.name} while {doing} ended it with {code}")
        else:
            if code:
                self._problem(workdir, f"it ended with {code} before it was killed")
        self.damaged += len(list((workdir / "checkpoints").glob("*.damaged*")))
        if self.damaged:
            self._problem(workdir, "a checkpoint was damaged")
        if (workdir / "results.json").exists():
            self._end_of(workdir)

    def _await(self, process: subprocess.Popen[bytes]) -> int | None:
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def _end_of(self, workdir: Path) -> None:
        self._compare(workdir)
        shutil.rmtree(workdir)
        self.finished += 1

    def _compare(self, workdir: Path) -> None:
        for name in WRITTEN:
            whole, found = self.root / "unbroken" / name, workdir / name
            if not found.exists() or found.read_bytes() != whole.read_bytes():
                self.differences += 1
                self._problem(workdir, f"{name} is not that of an unbroken run")

    def _problem(self, workdir: Path, sentence: str) -> None:
        errors = _complained(workdir).read_text(errors="replace")[-500:]
        self.problems.append(f"{workdir.name}: {sentence}" + (f": {errors}" if errors else ""))


def _said(workdir: Path) -> Path:
    return workdir.with_name(f"{workdir.name}.out")


def _complained(workdir: Path) -> Path:
    return workdir.with_name(f"{workdir.name}.err")
