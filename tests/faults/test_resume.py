"""An interrupted run ends as if nothing had happened: the same bytes, wherever it was interrupted.

The tiny runs have dropout on and 12 steps, 5 of them an epoch, and are evaluated and saved after
the steps 4, 8 and 12.
"""

import json
import os
import random
import shutil
import signal
import time

import pytest
from tiny_run import (
    KilledError,
    finished,
    interrupted,
    kill_at_the_save_of,
    results,
    rows,
    run,
    start,
)

from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.reports.finish import RunEvaluation
from hmgr_jax.training import loop
from hmgr_jax.training.checkpoint import Checkpoints

WRITTEN = ("metrics.jsonl", "results.json")


def _assert_same(workdir, model="vse"):
    for name in WRITTEN:
        assert (workdir / name).read_bytes() == (finished(model) / name).read_bytes()
    assert _steps(workdir) == _steps(finished(model))


def _steps(workdir):
    """Whole checkpoints, oldest first."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return sorted(int(name) for name in names if name.isdigit())


def _signal_at(monkeypatch, step, number=signal.SIGTERM):
    """A real signal to this process while the batch of ``step`` is on its way."""
    real, count = loop.shard, iter(range(1, 1000))

    def shard(mesh, batch):
        if next(count) == step:
            os.kill(os.getpid(), number)
        return real(mesh, batch)

    monkeypatch.setattr(loop, "shard", shard)


@pytest.mark.parametrize(
    ("model", "stops"),
    [
        # before the first evaluation, the last step of an epoch, one that is evaluated anyway
        ("vse", (5,)),
        pytest.param("vse", (1, 5, 8), marks=pytest.mark.slow),
        # the memory is written and read
        pytest.param("hmgr", (6,), marks=pytest.mark.slow),
    ],
)
def test_sigterm(tmp_path, monkeypatch, capsys, model, stops):
    workdir, at = tmp_path / "run", 0
    for stop in stops:
        _signal_at(monkeypatch, stop - at)
        assert run(workdir, model=model) == 0
        monkeypatch.undo()
        assert f"Stopped by SIGTERM after step {stop}, which is saved" in capsys.readouterr().out
        assert _steps(workdir)[-1] == stop
        assert not (workdir / "results.json").exists()
        assert (workdir / "metrics.jsonl").read_text() == "".join(
            json.dumps(row) + "\n" for row in rows(finished(model)) if row["step"] <= stop
        )
        at = stop
    assert run(workdir, model=model) == 0
    assert f"Resuming after step {at}" in capsys.readouterr().out
    for name in WRITTEN:
        assert (workdir / name).read_bytes() == (finished(model) / name).read_bytes()


@pytest.mark.slow
def test_a_signal_during_an_evaluation_keeps_its_row_and_its_metric(tmp_path, monkeypatch):
    real = Evaluator.metrics

    def metrics(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments)

    monkeypatch.setattr(Evaluator, "metrics", metrics)
    assert run(tmp_path / "run") == 0
    monkeypatch.undo()
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([4], 4)
    assert run(tmp_path / "run") == 0
    _assert_same(tmp_path / "run")


@pytest.mark.slow
def test_a_signal_during_the_last_evaluations_lets_the_run_finish(tmp_path, monkeypatch):
    real = RunEvaluation.finish

    def finish(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(RunEvaluation, "finish", finish)
    _signal_at(monkeypatch, 12, signal.SIGINT)  # at the last step too; the next one acts as usual
    former = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert run(tmp_path / "run") == 0
    finally:
        signal.signal(signal.SIGTERM, former)
    _assert_same(tmp_path / "run")


@pytest.mark.slow
def test_a_stop_that_is_announced_was_saved(tmp_path, monkeypatch, capsys):
    """However late in a step the signal comes."""

    class Late(loop.StopSignal):
        reads, name = 0, "SIGTERM"

        @property
        def requested(self):
            self.reads += 1
            return self.reads >= 6

        @requested.setter
        def requested(self, value):
            pass

    monkeypatch.setattr(loop, "StopSignal", Late)
    assert run(tmp_path / "run") == 0
    stopped = int(capsys.readouterr().out.split("after step ")[-1].split(",")[0])
    assert _steps(tmp_path / "run")[-1] == stopped


@pytest.mark.parametrize("step", [pytest.param(4, marks=pytest.mark.slow), 8])
def test_killed_between_the_dev_row_and_the_checkpoint(tmp_path, monkeypatch, step):
    kill_at_the_save_of(monkeypatch, step)
    with pytest.raises(KilledError):
        run(tmp_path / "run")
    assert rows(tmp_path / "run")[-1].keys() & {"dev/rsum"}
    monkeypatch.undo()
    assert run(tmp_path / "run") == 0
    _assert_same(tmp_path / "run")


@pytest.mark.slow
def test_killed_while_the_last_checkpoint_was_written(tmp_path):
    workdir = interrupted(tmp_path / "run")
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')
    assert run(workdir) == 0
    _assert_same(workdir)


@pytest.mark.filterwarnings("default")
def test_a_damaged_newest_checkpoint_costs_only_its_steps(tmp_path, capsys):
    workdir = shutil.copytree(finished(), tmp_path / "run")
    (workdir / "results.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "12" / "state" / "d")
    assert run(workdir) == 0
    assert "warning: the checkpoint of step 12" in capsys.readouterr().err
    for name in WRITTEN:
        assert (workdir / name).read_bytes() == (finished() / name).read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_damaged_best_checkpoint_is_missed(tmp_path, capsys):
    """Nothing is left to train: the second best is reported, and said to be that."""
    workdir = shutil.copytree(finished(), tmp_path / "run")
    best = results(workdir)["step"]
    (workdir / "results.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / str(best))
    assert best != 12, "the newest step would be trained again: choose another recipe"
    assert run(workdir) == 0
    assert f"warning: step {best} was the best on dev (" in capsys.readouterr().err
    assert results(workdir)["step"] != best


@pytest.mark.slow
def test_killed_after_the_last_checkpoint(tmp_path, capsys):
    """Nothing is left to train: only the results are made."""
    workdir = shutil.copytree(finished(), tmp_path / "run")
    for name in ("results.json", "curves.png", "recalls.png"):
        (workdir / name).unlink()
    assert run(workdir) == 0
    assert "epoch" not in capsys.readouterr().out.replace("epochs", "")
    _assert_same(workdir)
    assert (workdir / "curves.png").exists()
    assert (workdir / "recalls.png").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_changed_configuration_is_announced(tmp_path, capsys):
    workdir = interrupted(tmp_path / "run")
    assert run(workdir, train__lr=0.5, train__log_steps=4, data__threads=1) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning == (
        "warning: the configuration differs from the saved one: train.lr: 0.001 -> 0.5"
    )
    before, after = rows(finished()), rows(workdir)
    assert [row for row in after if row["step"] <= 8] == [r for r in before if r["step"] <= 8]
    assert after[-1] != before[-1]
    assert json.loads((workdir / "config.json").read_text())["train"]["lr"] == 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the configuration differs")
def test_results_of_a_shorter_run_do_not_stand_for_a_longer_one(tmp_path, monkeypatch):
    """Launchers take results.json for the end."""
    shutil.copytree(finished(), tmp_path / "run")
    kill_at_the_save_of(monkeypatch, 16)
    with pytest.raises(KilledError):
        run(tmp_path / "run", train__steps=20)
    assert not (tmp_path / "run" / "results.json").exists()


LONG = {"train__steps": 40, "train__eval_steps": 7, "train__save_steps": 3}


def _finish(workdir, **options):
    process = start(workdir, **LONG, **options)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    return out


@pytest.mark.slow
def test_sigterm_to_a_process(tmp_path):
    process = start(tmp_path / "cut", **LONG)
    for line in process.stdout:
        if "step 5/40" in line:
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    stopped = int(out.split("Stopped by SIGTERM after step ")[1].split(",")[0])
    assert _steps(tmp_path / "cut")[-1] == stopped
    assert f"Resuming after step {stopped}" in _finish(tmp_path / "cut")
    _finish(tmp_path / "whole")
    for name in WRITTEN:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path):
    """Kill a run again and again, then let it finish: the same bytes as without."""
    began = time.monotonic()
    _finish(tmp_path / "whole", model="hmgr")
    lasted = time.monotonic() - began
    draw = random.Random(0)
    reached = [0]
    for _ in range(3):
        process = start(tmp_path / "cut", model="hmgr", **LONG)
        process.stdout.readline()  # the data is open, the first step is being compiled
        time.sleep(draw.uniform(0.1, 0.6) * lasted)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        reached.append(max([0, *_steps(tmp_path / "cut")]))
    assert reached[-1] > reached[0]
    _finish(tmp_path / "cut", model="hmgr")
    for name in WRITTEN:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert results(tmp_path / "cut")["step"] in _steps(tmp_path / "cut")
