"""Check that a run that is killed and resumed many times ends like an uninterrupted run."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hmgr_jax
from benchmarks.soak_recipe import EVALUATED, LOGGED, STEPS
from hmgr_jax import bench
from hmgr_jax.errors import UserError
from hmgr_jax.training.records import read_rows

RECIPE = Path(__file__).with_name("soak_recipe.py")
WRITTEN = ("metrics.jsonl", "results.json")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
UNGUARDED = ("starting", "finishing")
"""Phases in which SIGTERM may end a process at once: imports, or after the results."""
BEFORE_STEPS = ("starting", "compiling")
PATIENCE = 1200.0
"""Seconds that a process has to save and end after SIGTERM, enough for a busy machine."""


def run(kills: int = 20, seed: int = 0, model: str = "vse", folder: str = "") -> dict[str, Any]:
    """Kill a small run on generated worlds at random moments, ``kills`` times, and resume it.

    The moments are uniform over the time from a start to the end of the run, so they hit imports,
    opening, restoring, training, evaluation and saving. The signals are SIGKILL and SIGTERM in
    turn. Each run that finishes is compared byte for byte with an uninterrupted run, and a new one
    is started. Runs are on CPU, where results are exact. ``folder`` is the parent of the temporary
    folder. Progress goes to standard error.

    Returns:
        a row for JSON: kills by signal and by phase, finished runs, ``differences`` of their
        metrics and results, ``damaged`` checkpoints, and ``problems``, a list of sentences; if it
        is empty, the exit code is 0.
    """
    if kills < 1:
        raise UserError(f"--kills must be at least 1, got {kills}.")
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
        """Run the soak; the row of `run`."""
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
        """Start or resume a run; its output goes to ``WORKDIR.out`` and ``WORKDIR.err``."""
        package = str(Path(hmgr_jax.__file__).parents[1])
        command = [sys.executable, "-m", "hmgr_jax.main", f"--config={RECIPE}:{self.model}"]
        changed = {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]),
            "JAX_COMPILATION_CACHE_DIR": str(self.root / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        with _output(workdir).open("wb") as out, _errors(workdir).open("wb") as errors:
            return subprocess.Popen(
                [*command, f"--workdir={workdir}"],
                stdout=out,
                stderr=errors,
                env=os.environ | changed,
            )

    def _measure(self, workdir: Path) -> Pace:
        """Let a run finish, and time its first step, its last step and its end."""
        began, process = time.monotonic(), self._start(workdir)
        stepped = trained = 0.0
        while process.poll() is None:
            doing, now = phase(workdir, _output(workdir)), time.monotonic() - began
            stepped = stepped or (0.0 if doing in BEFORE_STEPS else now)
            trained = trained or (now if doing == "finishing" else 0.0)
            time.sleep(0.02)
        if process.returncode:
            self._problem(workdir, f"a run that was left alone ended with {process.returncode}")
        return Pace(stepped, trained - stepped, time.monotonic() - began - trained)

    def _until_a_moment(self, process: subprocess.Popen[bytes], workdir: Path) -> int:
        """Wait for a random moment in the rest of the run; the exit code if it ends before.

        Seconds after a step are scaled up if this start was slower than the measured one.

        Raises:
            subprocess.TimeoutExpired: the moment has come and the run has not ended.
        """
        step, seconds = self.pace.moment(self.draw, self.reached)
        began, slower = time.monotonic(), 0.0
        while step and process.poll() is None:
            if phase(workdir, _output(workdir)) not in BEFORE_STEPS:
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
            doing = phase(workdir, _output(workdir))
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
        errors = _errors(workdir).read_text(errors="replace")[-500:]
        self.problems.append(f"{workdir.name}: {sentence}" + (f": {errors}" if errors else ""))


def _output(workdir: Path) -> Path:
    return workdir.with_name(f"{workdir.name}.out")


def _errors(workdir: Path) -> Path:
    return workdir.with_name(f"{workdir.name}.err")


@dataclass(frozen=True)
class Pace:
    """Seconds of the three parts of an uninterrupted run."""

    first_step: float
    """From the start to the first step."""
    training: float
    """From there to the last evaluation."""
    finishing: float
    """From there to its end."""

    def moment(self, draw: random.Random, reached: int) -> tuple[int, float]:
        """A random moment, uniform over the rest of a run that has made ``reached`` steps.

        The moment is (step, seconds after the row of that step); step 0 is the start. With seconds
        alone, runs would make no progress when the machine becomes busier.
        """
        left = (1 - reached / STEPS) * self.training
        moment = draw.uniform(0, self.first_step + left + self.finishing)
        if moment < self.first_step:
            return 0, moment
        beyond = moment - self.first_step
        if beyond >= left:
            return STEPS, beyond - left
        rows, seconds = divmod(beyond, self.training / STEPS * LOGGED)
        return max(1, reached + int(rows) * LOGGED), seconds


def phase(workdir: Path, output: Path) -> str:
    """One of starting, compiling, training, evaluating, saving, finishing.

    Args:
        workdir: of the run.
        output: the file of its standard output since its last start.
    """
    text = output.read_text(errors="replace") if output.exists() else ""
    if "steps of" not in text:
        return "starting"
    if list((workdir / "checkpoints").glob("*tmp*")):
        return "saving"
    if "epoch " not in text:
        return "compiling"
    rows, last = read_rows(workdir / "metrics.jsonl"), last_step(workdir)
    evaluated = any(row["step"] == last and "loss" not in row for row in rows[-2:])
    if last == STEPS and evaluated:
        return "finishing"
    if last and last % EVALUATED == 0 and last % LOGGED == 0 and not evaluated:
        return "evaluating"
    return "training"


def last_step(workdir: Path) -> int:
    """The last step that has a row of metrics; 0 without rows."""
    rows = read_rows(workdir / "metrics.jsonl")
    return int(rows[-1]["step"]) if rows else 0


if __name__ == "__main__":
    sys.exit(bench.main_of(run))
