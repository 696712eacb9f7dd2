"""Steps whose loss is not finite: skipped and counted, and when it stays so the items are named."""

import json

import numpy as np
import pytest
from tiny_run import results, rows, run, scan_folder

from hmgr_jax.training import loop
from hmgr_jax.training.bad_batches import FILE

pytestmark = pytest.mark.slow

SCAN = {"data__source": "scan", "data__batching": "rows", "eval__protocols": "plain"}
SCAN |= {"eval__dev_protocols": "plain"}


def _poison(monkeypatch, bad):
    """Infinite regions in the batches of the steps ``bad``; returns {step: rows of its batch}."""
    real, count, seen = loop.shard, iter(range(1, 1000)), {}

    def shard(mesh, batch):
        step = next(count)
        seen[step] = np.array(batch["row"]["item"])
        if step in bad:
            batch["image"]["regions"] = np.full_like(batch["image"]["regions"], np.inf)
        return real(mesh, batch)

    monkeypatch.setattr(loop, "shard", shard)
    return seen


def test_the_items_of_the_bad_batches_are_listed(tmp_path, monkeypatch, capsys):
    root, workdir = scan_folder(tmp_path / "data"), tmp_path / "run"
    seen = _poison(monkeypatch, {2, 5, 6, 7})
    options = SCAN | {"data__root": root, "train__max_bad_steps": 3}
    assert run(workdir, **options) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.endswith(
        f"extreme values in the features of the items listed in {workdir / FILE}."
    )
    found = json.loads((workdir / FILE).read_text())
    assert [entry["step"] for entry in found] == [5, 6, 7]
    for entry in found:
        captions = seen[entry["step"]]  # two captions a picture
        assert entry["image"] == [f"train{i // 2}.jpg" for i in captions]
        assert entry["text"] == [f"train{i // 2}.jpg#{i % 2}" for i in captions]


def test_steps_that_are_not_logged_count_too(tmp_path, monkeypatch, capsys):
    """Twelve steps, of which 6 and 12 are logged: 3 and 4 are skipped, from 8 on all are bad."""
    _poison(monkeypatch, {3, 4, *range(8, 13)})
    options = {"train__log_steps": 6, "train__max_bad_steps": 5, "train__eval_steps": 100}
    assert run(tmp_path / "run", **options) == 2
    assert "not finite for 5 steps in a row up to step 12" in capsys.readouterr().err
    assert [(row["step"], row["bad_steps"]) for row in rows(tmp_path / "run")] == [(6, 2), (12, 7)]
    found = json.loads((tmp_path / "run" / FILE).read_text())
    assert [entry["step"] for entry in found] == [8, 9, 10, 11, 12]


def test_too_few_in_a_row_do_not_stop_the_run(tmp_path, monkeypatch):
    _poison(monkeypatch, set(range(8, 13)))
    assert run(tmp_path / "run", train__max_bad_steps=6) == 0
    assert not (tmp_path / "run" / FILE).exists()
    assert results(tmp_path / "run")["metrics"]["rsum"] > 0
