"""Check that a run that is killed and resumed many times ends like an uninterrupted run."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hmgr_jax
from benchmarks.soak_recipe import STEPS
from hmgr_jax import bench
from hmgr_jax.errors import UserError

RECIPE = Path(__file__).with_name("soak_recipe.py")
WRITTEN = ("metrics.jsonl", "results.json")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
UNGUARDED = ("starting", "finishing")
"""Phases in which SIGTERM may end a process at once: before the loop, or after the last step."""
INSIDE = ("training", "saving", "evaluating")
AIMS = {"starting": 6, "compiling": 6, "training": 36, "saving": 30, "evaluating": 18} | {
    "finishing": 4
}
"""Phases at which kills are aimed, with their weights."""
AHEAD = {"training": 8, "saving": 2, "evaluating": 1}
"""Most events of a phase that a run may pass before it is killed in the last of them."""
NEAR_THE_END = STEPS - 10
"""The step from which on kills are aimed at the end."""
PATIENCE = 1200.0
"""Seconds that a process has to save and end after SIGTERM, enough for a busy machine."""


def run(kills: int = 20, seed: int = 0, model: str = "vse", folder: str = "") -> dict[str, Any]:
    """Kill a small run on generated worlds ``kills`` times, and resume it.

    Most kills are aimed into steps, saves and evaluations: the run says what it begins to do, and
    is killed after a random part of the time that this took in an uninterrupted run. The signals
    are SIGKILL and SIGTERM in turn. Each run that finishes is compared byte for byte with an
    uninterrupted run, and a new one is started. Runs are forked from a process that has imported
    the program, on CPU, where results are exact. ``folder`` is the parent of the temporary folder.
    Progress goes to standard error.

    Returns:
        a row for JSON: kills by signal and by the phase in which they fell, the number of them
        ``inside`` steps, saves and evaluations, finished runs, ``differences`` of their metrics
        and results, ``damaged`` checkpoints, and ``problems``, a list of sentences; if it is empty,
        the exit code is 0.
    """
    if kills < 1:
        raise UserError(f"--kills must be at least 1, got {kills}.")
    with tempfile.TemporaryDirectory(dir=folder or None) as root, Server(Path(root)) as server:
        return _Soak(Path(root), model, random.Random(seed), server).row(kills)


class Event(NamedTuple):
    """What a run began to do."""

    phase: str
    step: int
    at: float


class Aim(NamedTuple):
    """A moment: ``seconds`` after the event ``number`` of a phase, counted from 1."""

    phase: str
    number: int
    seconds: float


class Server:
    """The process that forks runs (`benchmarks.soak_server`), one at a time."""

    def __init__(self, root: Path) -> None:
        package = Path(hmgr_jax.__file__).parents[1]
        checkout = Path(__file__).parents[1]
        changed = {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(
                [str(package), str(checkout), os.environ.get("PYTHONPATH", "")]
            ),
            "JAX_COMPILATION_CACHE_DIR": str(root / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | changed,
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def start(self, arguments: Sequence[str], workdir: Path) -> int:
        """Fork a run; its output goes to files beside ``workdir``. Returns the process id."""
        files = {name: str(beside(workdir, name)) for name in ("out", "err", "events")}
        beside(workdir, "events").unlink(missing_ok=True)
        assert self._process.stdin is not None
        print(json.dumps({"arguments": arguments} | files), file=self._process.stdin, flush=True)
        return self._answer()

    def wait(self) -> int:
        """The exit code of the run, once it has ended."""
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


class _Soak:
    """The runs of one soak, one after another, in folders below ``root``."""

    def __init__(self, root: Path, model: str, draw: random.Random, server: Server) -> None:
        self.root, self.model, self.draw, self.server = root, model, draw, server
        self.signals: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.finished = self.differences = self.damaged = 0
        self.problems: list[str] = []

    def row(self, kills: int) -> dict[str, Any]:
        """Run the soak; the row of `run`."""
        began = time.monotonic()
        self._let_finish(self.root / "first")  # fills the compile cache
        self._let_finish(self.root / "unbroken")
        self.seconds = durations(events(self.root / "unbroken"), time.monotonic())
        self._compare(self.root / "first")
        while (done := sum(self.signals.values())) < kills and not self.problems:
            if done % 10 == 0:
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
            "inside": sum(self.phases[phase] for phase in INSIDE),
            "runs_finished": self.finished,
            "differences": self.differences,
            "damaged": self.damaged,
            "problems": self.problems,
            "seconds_of_phases": self.seconds,
            "seconds": time.monotonic() - began,
        }

    def _current(self) -> Path:
        return self.root / f"run{self.finished}"

    def _start(self, workdir: Path) -> int:
        command = ["main", f"--config={RECIPE}:{self.model}", f"--workdir={workdir}"]
        return self.server.start(command, workdir)

    def _let_finish(self, workdir: Path) -> None:
        self._start(workdir)
        code = self.server.wait()
        if code:
            self._problem(workdir, f"a run that was left alone ended with {code}")

    def _kill(self, number: signal.Signals) -> None:
        """Start or resume the current run and send it a signal at a random moment."""
        workdir = self._current()
        aim = self._aim(last_step(workdir))
        pid = self._start(workdir)
        doing = _await(aim, pid, workdir)
        if doing is None:
            if left_alone := self.server.wait():
                self._problem(workdir, f"it ended with {left_alone} before it was killed")
        else:
            os.kill(pid, number)
            code = self._wait_or_kill(pid)
            # The run may have begun something else between the last look and the signal.
            doing = phase(events(workdir)) if number == signal.SIGKILL else doing
            self.signals[number.name] += 1
            self.phases[doing] += 1
            saved = number == signal.SIGTERM and code == 0
            ended = code == -number and (number == signal.SIGKILL or doing in UNGUARDED)
            if not saved and not ended:
                self._problem(workdir, f"{number.name} while {doing} ended it with {code}")
        self.damaged += len(list((workdir / "checkpoints").glob("*.damaged*")))
        if self.damaged:
            self._problem(workdir, "a checkpoint was damaged")
        if (workdir / "results.json").exists():
            self._end_of(workdir)

    def _aim(self, reached: int) -> Aim:
        """A random moment in what is left of a run that has made ``reached`` steps."""
        weights = {k: w for k, w in AIMS.items() if k != "finishing" or reached >= NEAR_THE_END}
        (where,) = self.draw.choices(list(weights), list(weights.values()))
        count = self.draw.randint(1, AHEAD.get(where, 1))
        return Aim(where, count, self.draw.uniform(0, self.seconds.get(where, 0.0)))

    def _wait_or_kill(self, pid: int) -> int | None:
        """The exit code; None if the process had to be killed because it did not end."""
        late: list[int] = []

        def give_up(*_: object) -> None:
            late.append(pid)
            os.kill(pid, signal.SIGKILL)

        former = signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            code = self.server.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        return None if late else code

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
        file = beside(workdir, "err")
        errors = file.read_text(errors="replace")[-500:] if file.exists() else ""
        self.problems.append(f"{workdir.name}: {sentence}" + (f": {errors}" if errors else ""))


def _await(aim: Aim, pid: int, workdir: Path) -> str | None:
    """Wait for a moment; returns the phase at that moment, or None if the run ends before."""
    while _is_alive(pid):
        told = events(workdir)
        of_aim = [event for event in told if event.phase == aim.phase]
        if len(of_aim) >= aim.number:
            time.sleep(max(0.0, of_aim[aim.number - 1].at + aim.seconds - time.monotonic()))
            return phase(events(workdir)) if _is_alive(pid) else None
        time.sleep(0.002)
    return None


def _is_alive(pid: int) -> bool:
    """Whether the process exists and has not ended; its parent may not have asked for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def beside(workdir: Path, name: str) -> Path:
    """``WORKDIR.NAME``: the output, the errors or the events of a run since its last start."""
    return workdir.with_name(f"{workdir.name}.{name}")


def events(workdir: Path) -> list[Event]:
    """What a run has said since its last start."""
    file = beside(workdir, "events")
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [Event(a, int(b), float(c)) for a, b, c in (line.split() for line in lines)]


def phase(told: Sequence[Event]) -> str:
    """One of starting, compiling, training, evaluating, saving, finishing.

    Checkpoints are written beside the steps that follow: until they are sealed, the run is saving.
    """
    doing, unsaved = "starting", set()
    for event in told:
        if event.phase == "saving":
            unsaved.add(event.step)
        elif event.phase == "saved":
            unsaved.discard(event.step)
        else:
            doing = event.phase
    return "saving" if unsaved and doing == "training" else doing


def durations(told: Sequence[Event], end: float) -> Mapping[str, float]:
    """Median seconds from an event to the next one of another step or phase, by phase."""
    found: dict[str, list[float]] = defaultdict(list)
    saved = {event.step: event.at for event in told if event.phase == "saved"}
    rest = [event for event in told if event.phase != "saved"]
    for event, later in itertools.pairwise([*rest, Event("", 0, end)]):
        until = saved.get(event.step, end) if event.phase == "saving" else later.at
        found[event.phase].append(until - event.at)
    return {name: sorted(each)[len(each) // 2] for name, each in found.items()}


def last_step(workdir: Path) -> int:
    """The newest complete checkpoint of a run; 0 without one."""
    folder = workdir / "checkpoints"
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    return max(steps, default=0)


if __name__ == "__main__":
    sys.exit(bench.main_of(run))
