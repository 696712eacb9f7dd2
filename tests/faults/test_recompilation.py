"""Captions of many lengths: a program a bucket, and none for a second evaluation."""

import pytest
from contract_cases import compilations
from tiny_run import run

from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.training import loop
from hmgr_jax.training.experiment import Experiment

pytestmark = pytest.mark.slow


def test_programs_are_as_many_as_buckets(tmp_path, monkeypatch):
    steps, lengths, during = [], set(), []
    make, shard, metrics = Experiment.step_function, loop.shard, Evaluator.metrics

    def step_function(self, stage):
        steps.append(make(self, stage))
        return steps[-1]

    def watched_shard(mesh, batch):
        lengths.add(batch["text"]["tokens"].shape[1])
        return shard(mesh, batch)

    def watched_metrics(self, *arguments, **options):
        before = compilations()
        found = metrics(self, *arguments, **options)
        during.append(compilations() - before)
        return found

    monkeypatch.setattr(Experiment, "step_function", step_function)
    monkeypatch.setattr(loop, "shard", watched_shard)
    monkeypatch.setattr(Evaluator, "metrics", watched_metrics)
    options = {"data__buckets": "12,14,16,18,20,22,24,32", "train__log_steps": 12}
    assert run(tmp_path / "run", **options) == 0
    (step,) = steps
    assert step._cache_size() == len(lengths) > 1
    assert during[0] > 0
    assert during[1:3] == [0, 0]  # dev again; test is another size
