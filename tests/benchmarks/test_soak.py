"""The soak kills, resumes and compares runs, and it notices a run that ends differently."""

import json
import random
import subprocess
import sys
from collections import Counter

import pytest

from benchmarks import soak
from benchmarks.soak import AHEAD, AIMS, INSIDE, NEAR_THE_END, Event, durations, phase
from hmgr_jax import bench


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_like_an_uninterrupted_one(capsys):
    assert bench.main_of(soak.run, ["soak", "--kills", "6", "--seed", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert row["kills"] == sum(row["killed_while"].values()) == 6
    assert row["signals"] == {"SIGKILL": 3, "SIGTERM": 3}
    assert row["inside"] >= 3
    assert row["runs_finished"] >= 1
    assert (row["differences"], row["damaged"], row["problems"]) == (0, 0, [])


FAKE = """
import pathlib, sys
workdir = pathlib.Path(sys.argv[2].partition("=")[2])
fault = sys.argv[1]
workdir.mkdir(exist_ok=True)
for name in ("metrics.jsonl", "results.json"):
    (workdir / name).write_text("other" if fault == "other" and workdir.name == "run0" else "rows")
if fault == "damaged" and workdir.name == "run0":
    (workdir / "checkpoints" / "4.damaged").mkdir(parents=True)
if fault == "fails" and workdir.name == "run0":
    print("error: this is why", file=sys.stderr)
    sys.exit(3)
"""


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("other", "run0: metrics.jsonl is not that of an unbroken run"),
        ("damaged", "run0: a checkpoint was damaged"),
        ("fails", "run0: it ended with 3 before it was killed: error: this is why"),
    ],
)
def test_each_failure_is_reported(tmp_path, monkeypatch, fault, sentence):
    """A script that is no run at all stands for a faulty one; it is too quick to be killed."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)

    class Server:
        def __init__(self, root):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def start(self, arguments, workdir):
            command = [sys.executable, script, fault, arguments[-1]]
            with soak.beside(workdir, "err").open("wb") as errors:
                self.process = subprocess.Popen(command, stderr=errors)
            return self.process.pid

        def wait(self):
            return self.process.wait()

    monkeypatch.setattr(soak, "Server", Server)
    row = soak.run(kills=1, folder=str(tmp_path))
    assert any(problem.startswith(sentence) for problem in row["problems"]), row
    assert bench.main_of(soak.run, ["soak", "--kills", "1", "--folder", str(tmp_path)]) == 1


def test_kills_are_aimed_into_steps_saves_and_evaluations(tmp_path):
    made = soak._Soak(tmp_path, "vse", random.Random(0), None)
    made.seconds = dict.fromkeys(AIMS, 2.0)
    for reached in (0, NEAR_THE_END):
        aims = [made._aim(reached) for _ in range(1000)]
        found = Counter(aim.phase for aim in aims)
        assert 750 < sum(found[phase] for phase in INSIDE) < 950
        assert found.keys() == AIMS.keys() - ({"finishing"} if not reached else set())
        assert all(1 <= aim.number <= AHEAD.get(aim.phase, 1) for aim in aims)
        assert min(aim.seconds for aim in aims) < 0.1 < 1.9 < max(aim.seconds for aim in aims) <= 2


def _events(*told):
    return [Event(phase, step, float(at)) for at, (phase, step) in enumerate(told)]


@pytest.mark.parametrize(
    ("told", "doing"),
    [
        ([], "starting"),
        ([("starting", 0)], "starting"),
        ([("starting", 0), ("compiling", 5)], "compiling"),
        ([("compiling", 5), ("training", 6)], "training"),
        ([("training", 8), ("saving", 8)], "saving"),
        ([("training", 8), ("saving", 8), ("training", 9)], "saving"),
        ([("training", 8), ("saving", 8), ("training", 9), ("saved", 8)], "training"),
        ([("training", 10), ("saving", 8), ("evaluating", 10)], "evaluating"),
        ([("training", 120), ("finishing", 0)], "finishing"),
    ],
)
def test_the_phase_of_a_run(told, doing):
    assert phase(_events(*told)) == doing


def test_the_seconds_of_phases():
    told = _events(
        *[("starting", 0), ("compiling", 1), ("training", 2), ("training", 3), ("saving", 4)],
        *[("training", 5), ("saved", 4), ("evaluating", 10), ("finishing", 0)],
    )
    assert durations(told, 20.0) == {
        "starting": 1.0,
        "compiling": 1.0,
        "training": 1.0,
        "saving": 2.0,
        "evaluating": 1.0,
        "finishing": 12.0,
    }
