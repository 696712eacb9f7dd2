"""The soak kills, resumes and compares runs, and it notices a run that ends differently."""

import json
import random
import sys

import pytest

from benchmarks import soak
from benchmarks.soak import Pace, phase
from benchmarks.soak_recipe import STEPS
from hmgr_jax import bench

pytestmark = pytest.mark.slow


def test_a_killed_and_resumed_run_ends_like_an_uninterrupted_one(capsys):
    assert bench.main_of(soak.run, ["soak", "--kills", "4", "--seed", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert row["kills"] == sum(row["killed_while"].values()) == 4
    assert row["signals"] == {"SIGKILL": 2, "SIGTERM": 2}
    assert row["runs_finished"] >= 1
    assert (row["differences"], row["damaged"], row["problems"]) == (0, 0, [])


FAKE = """
import pathlib, sys, time
workdir = pathlib.Path(sys.argv[2].partition("=")[2])
fault = sys.argv[1]
workdir.mkdir(exist_ok=True)
time.sleep(0.5)
for name in ("metrics.jsonl", "results.json"):
    fresh = not (workdir / "begun").exists()
    with (workdir / name).open("a") as file:
        file.write("row\\n" if fresh and not (fault == "twice" and workdir.name == "run0") else "x")
(workdir / "begun").touch()
if fault == "damaged" and workdir.name == "run0":
    (workdir / "checkpoints" / "4.damaged").mkdir(parents=True)
if fault == "fails" and workdir.name == "run0":
    print("error: this is why", file=sys.stderr)
    sys.exit(3)
"""


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("twice", "run0: metrics.jsonl is not that of an unbroken run"),
        ("damaged", "run0: a checkpoint was damaged"),
        ("fails", "run0: it ended with 3 before it was killed: error: this is why"),
    ],
)
def test_each_failure_is_reported(tmp_path, monkeypatch, fault, sentence):
    """A script that is no run at all stands for a faulty one; it is too quick to be killed."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    real = soak.subprocess.Popen

    def popen(command, **options):
        return real([sys.executable, script, fault, command[-1]], **options)

    monkeypatch.setattr(soak.subprocess, "Popen", popen)
    monkeypatch.setattr(soak.random.Random, "uniform", lambda *_: 60.0)
    row = soak.run(kills=1, folder=str(tmp_path))
    assert any(problem.startswith(sentence) for problem in row["problems"]), row
    assert bench.main_of(soak.run, ["soak", "--kills", "1", "--folder", str(tmp_path)]) == 1


def test_moments_are_spread_over_what_is_left_of_a_run():
    pace, draw = Pace(first_step=2.0, training=12.0, finishing=1.0), random.Random(0)
    for reached, seconds in ((0, 12.0), (90, 3.0), (STEPS, 0.0)):
        found = [pace.moment(draw, reached) for _ in range(2000)]
        starting = [s for step, s in found if step == 0]
        finishing = [s for step, s in found if step == STEPS]
        between = [(step, s) for step, s in found if 0 < step < STEPS]
        for part, share in ((starting, 2.0), (between, seconds), (finishing, 1.0)):
            assert len(part) / 2000 == pytest.approx(share / (3 + seconds), abs=0.05)
        assert 0 <= min(starting) < 0.2 < 1.8 < max(starting) < 2
        assert all(max(1, reached) <= step and 0 <= s <= 0.2 for step, s in between)
        if between:
            assert min(between)[0] <= reached + 2
            assert max(between)[0] == STEPS - 2


def test_the_phase_of_a_run(tmp_path):
    workdir, said = tmp_path / "run", tmp_path / "run.out"
    (workdir / "checkpoints").mkdir(parents=True)
    assert phase(workdir, said) == "starting"
    said.write_text("vse on soak: 120 steps of 16 rows, 4.8 epochs\n")
    assert phase(workdir, said) == "compiling"
    said.write_text(said.read_text() + "epoch 1  step 2/120\n")
    metrics = workdir / "metrics.jsonl"
    for rows, expected in (
        ([{"step": 8, "loss": 1.0}], "training"),
        ([{"step": 10, "loss": 1.0}], "evaluating"),
        ([{"step": 10, "loss": 1.0}, {"step": 10, "dev/rsum": 1.0}], "training"),
        ([{"step": STEPS, "loss": 1.0}, {"step": STEPS, "dev/rsum": 1.0}], "finishing"),
    ):
        metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert phase(workdir, said) == expected
    (workdir / "checkpoints" / "12.orbax-checkpoint-tmp").mkdir()
    assert phase(workdir, said) == "saving"
