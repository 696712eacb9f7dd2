"""A run from its first step to its results: what it writes, which step it keeps, when it stops."""

import math
import shutil
import types

import jax
import numpy as np
import pytest
from tiny_run import config, files, finished, results, rows, run

from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.reports import plots
from hmgr_jax.training import loop
from hmgr_jax.training.config import config_hash

RECALLS = [f"{side}/R@{k}" for side in ("i2t", "t2i") for k in (1, 5, 10)]
METRICS = {*RECALLS, *(f"{s}/{m}" for s in ("i2t", "t2i") for m in ("medR", "meanR")), "rsum"}
METRICS |= {"family/accuracy", "family/i2t"}


def test_results():
    found = results(finished())
    assert list(found) == [
        "model",
        "protocol",
        "split",
        "metrics",
        "step",
        "config_hash",
        "data_fingerprint",
        "chance",
    ]
    assert found["chance"]["t2i/R@5"] == pytest.approx(100 * 5 / 12)
    assert (found["model"], found["protocol"], found["split"]) == ("vse", "worlds,family", "test")
    assert set(found["metrics"]) == METRICS
    metrics = found["metrics"]
    assert all(isinstance(value, float) for value in metrics.values())
    assert all(0 <= metrics[name] <= 100 for name in RECALLS)
    assert metrics["rsum"] == pytest.approx(sum(metrics[name] for name in RECALLS))
    assert found["config_hash"] == config_hash(config())
    assert found["data_fingerprint"] == open_worlds(0, 40, 8, 12).fingerprint


def test_a_row_a_logging_step_and_a_row_a_dev_evaluation():
    found = rows(finished())
    training = [row for row in found if "loss" in row]
    dev = [row for row in found if "loss" not in row]
    assert [row["step"] for row in training] == list(range(1, 13))
    assert [row["step"] for row in dev] == [4, 8, 12]
    assert {*training[0]} == {"step", "loss", "triplet", "plateau", "lr", "grad_norm"}
    assert all({*row} == {"step", *(f"dev/{name}" for name in METRICS)} for row in dev)
    assert training[0]["lr"] == pytest.approx(5e-4)  # the first of two steps of warm-up
    assert len({row["loss"] for row in training}) == 12


def test_the_test_step_is_the_earliest_of_the_best_on_dev():
    dev = {row["step"]: row["dev/rsum"] for row in rows(finished()) if "dev/rsum" in row}
    best = max(dev, key=lambda step: (dev[step], -step))
    assert results(finished())["step"] == best


def test_files():
    found = files(finished())
    for name in ("curves.png", "recalls.png"):
        assert found[name][0].startswith(b"\x89PNG")
    assert any(name.startswith("tensorboard/events") for name in found)
    assert "timing.jsonl" in found
    assert "config.json" in found
    kept = {name.split("/")[1] for name in found if name.startswith("checkpoints/")}
    assert kept == {str(results(finished())["step"]), "8", "12"}


def test_a_finished_run_prints_its_results_and_changes_nothing(capsys):
    before = files(finished())
    assert run(finished()) == 0
    out = capsys.readouterr().out
    assert "vse on worlds, test, step" in out
    assert "epoch" not in out
    assert str(finished() / "results.json") in out
    assert files(finished()) == before


@pytest.mark.slow
def test_two_equal_runs_write_equal_files(tmp_path):
    assert run(tmp_path / "run", train__save_steps=1, data__threads=1) == 0
    for name in ("metrics.jsonl", "results.json"):
        assert (tmp_path / "run" / name).read_bytes() == (finished() / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("rsums", "best"), [([9.0, 5.0, 7.0], 4), ([5.0, 7.0, 7.0], 8)])
def test_the_dev_best_weights_are_those_that_are_tested(tmp_path, monkeypatch, rsums, best):
    """Not the last ones, and of equals the earliest; whatever order the checkpoints went in."""
    seen, answers = [], iter([*rsums, 0.0])

    def metrics(self, variables, split, protocols, **_):
        seen.append((split.name, jax.device_get(variables.params)))
        return {"rsum": next(answers), "i2t/R@1": 1.0}

    monkeypatch.setattr(Evaluator, "metrics", metrics)
    assert run(tmp_path / "run") == 0
    assert [name for name, _ in seen] == ["dev", "dev", "dev", "test"]
    assert results(tmp_path / "run")["step"] == best
    same = [_equal(params, seen[3][1]) for _, params in seen[:3]]
    assert same == [step == best for step in (4, 8, 12)]


def _equal(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def _poison(monkeypatch, bad):
    """Infinite regions in the batches of the steps ``bad``, counted from 1."""
    real, count = loop.shard, iter(range(1, 1000))

    def shard(mesh, batch):
        if next(count) in bad:
            batch["image"]["regions"] = np.full_like(batch["image"]["regions"], np.inf)
        return real(mesh, batch)

    monkeypatch.setattr(loop, "shard", shard)


def test_non_finite_steps_are_counted_and_change_nothing(tmp_path, monkeypatch):
    _poison(monkeypatch, {6, 7, 10})
    assert run(tmp_path / "run", train__max_bad_steps=3) == 0
    found = {row["step"]: row for row in rows(tmp_path / "run") if "lr" in row}
    assert [found[step].get("bad_steps", 0) for step in range(5, 13)] == [0, 1, 2, 2, 2, 3, 3, 3]
    assert "loss" not in found[6]
    assert all(math.isfinite(value) for row in found.values() for value in row.values())
    assert results(tmp_path / "run")["metrics"].keys() == METRICS


@pytest.mark.slow
def test_a_loss_that_stays_non_finite_ends_the_run(tmp_path, monkeypatch, capsys):
    _poison(monkeypatch, range(6, 1000))
    assert run(tmp_path / "run", train__max_bad_steps=3) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: The loss or its gradient was not finite for 3 steps in a row")
    assert "up to step 8; their updates were discarded: lower train.lr" in error
    found = rows(tmp_path / "run")
    assert [row["bad_steps"] for row in found if "bad_steps" in row] == [1, 2, 3]
    assert (tmp_path / "run" / "checkpoints" / "4").is_dir()
    assert not (tmp_path / "run" / "results.json").exists()
    # Mended, the same command goes on from what was saved to the results of a run without fault.
    monkeypatch.undo()
    assert run(tmp_path / "run", train__max_bad_steps=3) == 0
    assert rows(tmp_path / "run") == rows(finished())


@pytest.mark.slow
def test_results_come_last(tmp_path, monkeypatch):
    """A run that died while drawing is not finished: the plots are made by the next start."""
    monkeypatch.setattr(plots, "recalls", lambda *_: 1 / 0)
    assert run(tmp_path / "run") == 70
    assert not (tmp_path / "run" / "results.json").exists()
    monkeypatch.undo()
    assert run(tmp_path / "run") == 0
    assert (tmp_path / "run" / "recalls.png").exists()
    assert results(tmp_path / "run") == results(finished())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_more_steps_go_on_from_a_finished_run(tmp_path, capsys):
    workdir = shutil.copytree(finished(), tmp_path / "run")
    changed = {"train__steps": 14, "train__decay": "none"}
    assert run(workdir, **changed) == 0
    said = "differs from the saved one: train.decay: 'cosine' -> 'none'; train.steps: 12 -> 14\n"
    assert capsys.readouterr().err.endswith(said)
    assert [row["step"] for row in rows(workdir) if "loss" in row] == list(range(1, 15))
    assert results(workdir)["config_hash"] == config_hash(config(**changed))


def test_a_loss_that_stays_at_its_plateau_is_told_once():
    told = []
    progress = types.SimpleNamespace(say=told.append)
    seen = types.SimpleNamespace(plateau_since=None, progress=progress)
    for step in range(10, 1000, 10):
        value = 0.3 if step < 200 else math.nan if step == 300 else 0.401
        loop._Run._watch_plateau(seen, step, {"triplet": value, "plateau": 0.4, "loss": value})
        assert len(told) == (step >= 410)
    assert told[0].startswith("The triplet loss has been 0.401 since step 310, ")
    loop._Run._watch_plateau(seen, 1000, {"loss": 1.0})  # no hinges
