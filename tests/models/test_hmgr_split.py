"""HMGR's bank split over devices: a training step and an evaluation are those of a whole bank."""

import jax
import numpy as np
import pytest
from hmgr_cases import ITEMS, S, codes, hmgr, row, variables_of

from hmgr_jax.distributed.parallel import MappedAxis, make_mesh, map_step, place, shard
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.models import hmgr as hmgr_file
from hmgr_jax.training.optimizer import Optimizer, Schedule
from hmgr_jax.training.step import device_step, init_state

STEPS = 3


@pytest.fixture
def small(monkeypatch):
    """Banks of more than 8 slots are split; a model with one of 48, and its variables."""
    monkeypatch.setattr(hmgr_file, "MOST_SLOTS", S)
    model = hmgr(slots=6 * S, learned_reads=True, memory_warmup_steps=0, pool_dropout=0.0)
    return model, variables_of(model)


def after_steps(model, variables, devices, *, split):
    """The state after some steps on the same batch, on the host."""
    mesh, optimizer = make_mesh(devices), Optimizer(Schedule(0.1, STEPS), model.parts(), "sgd")
    step = map_step(device_step(model, optimizer, MappedAxis()), mesh, split_memory=split)
    start = jax.jit(lambda: init_state(model, optimizer, 0))()
    start = start.replace(params=variables.params, memory=variables.memory)
    state = place(mesh, jax.device_get(start), split_memory=split)
    batch = shard(mesh, {**ITEMS, "row": row(valid=13)})
    for _ in range(STEPS):
        state, report = step(state, None, batch)
    if split:
        parts = {x.data.shape[0] for x in state.memory.bank.vectors["text"].addressable_shards}
        assert parts == {model.slots // devices}
    return jax.device_get(state), {name: float(x) for name, x in report.items()}


def test_training_with_a_split_bank_is_training_with_a_whole_one(small, monkeypatch):
    found, report = after_steps(*small, 8, split=True)
    monkeypatch.setattr(hmgr_file, "MOST_SLOTS", 10 * S)
    expected, wanted = after_steps(*small, 1, split=False)
    assert report == pytest.approx(wanted, rel=1e-4)
    assert wanted["memory/text/moved"] > 0.01
    assert expected.memory.bank.read.any()

    def compare(own, other):
        if other.dtype == np.float32:
            np.testing.assert_allclose(own, other, rtol=0, atol=2e-5)
        else:
            np.testing.assert_array_equal(own, other)

    jax.tree.map(compare, found, expected)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected.params, small[1].params)
    assert all(x > 1e-4 for x in jax.tree.leaves(moved["memory"]))


def test_evaluation_with_a_split_bank_is_that_with_a_whole_one(small):
    model, variables = small
    evaluator = Evaluator(model, make_mesh(8), batch_size=16)
    placed = evaluator.to_local_devices(jax.device_get(variables))
    assert evaluator.split
    assert not placed.memory.bank.group.sharding.is_fully_replicated
    numbers = np.arange(16)
    for m, items in jax.device_get(ITEMS).items():
        found = evaluator.encode_batch(placed, m, items, numbers)
        expected = jax.jit(lambda v, i, m=m: model.encode(v, m, i, train=False, keys=None)[0])(
            variables, ITEMS[m]
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    after, report = model.memory_report(placed, jax.device_get(codes()))
    expected, wanted = model.memory_report(variables, codes())
    assert report == pytest.approx(wanted, rel=1e-4)
    for m, x in expected.items():
        np.testing.assert_allclose(after[m], x, rtol=0, atol=1e-5)


def test_the_codes_of_a_sleeping_split_bank_are_those_before_it(small):
    model, variables = small
    evaluator = Evaluator(model, make_mesh(8), batch_size=16)
    asleep = evaluator.to_local_devices(jax.device_get(model.before_finalize(variables)))
    found = evaluator.encode_batch(asleep, "text", jax.device_get(ITEMS["text"]), np.arange(16))
    expected = jax.jit(lambda v, i: model.apply_tower(v, "text", i)[0])(variables, ITEMS["text"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
