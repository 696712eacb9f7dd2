"""``rebuild_memory``: training pairs are written again before evaluation."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmgr_cases import D, hmgr, variables_of
from layer_cases import unit
from tiny_run import files, finished, results

import hmgr_jax
from hmgr_jax.main import main
from hmgr_jax.models import get_model
from hmgr_jax.models import hmgr as hmgr_file
from hmgr_jax.models.base import LocalAxis

IMAGES, CAPTIONS, BATCH = 10, 30, 16
ROWS = {"image": np.arange(CAPTIONS) // 3, "text": np.arange(CAPTIONS)}


def train_codes(seed=0):
    rng = np.random.default_rng(seed)
    return {m: unit(rng.standard_normal((n, D))).astype(np.float32) for m, n in SIZES.items()}


SIZES = {"image": IMAGES, "text": CAPTIONS}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(hmgr_file, "REBUILD_BATCH", BATCH)


@pytest.fixture(scope="module")
def variables():
    return variables_of(hmgr())


def batch_by_batch(model, variables, codes, rows):
    """The slots after the given pairs, one batch at a time by the read and write of training."""
    memory, slots = model._memory(variables), variables.memory.slots
    write_batch = jax.jit(lambda slots, x, ok: memory.read_then_write(slots, x, ok, LocalAxis())[1])
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        valid = np.arange(BATCH) < len(batch)
        batch = np.resize(batch, BATCH)
        given = {m: jnp.asarray(codes[m][ROWS[m][batch]]) for m in codes}
        slots = write_batch(slots, given, jnp.asarray(valid))
    return slots


@pytest.mark.parametrize(("batches", "pairs"), [(1, 16), (2, 30), (50, 30)])
def test_training_pairs_are_written_batch_by_batch(variables, batches, pairs):
    """With an incomplete last batch, and no pair twice."""
    model, codes = hmgr(rebuild_memory=batches), train_codes()
    assert model.needs_train
    found = model.finalize(variables, codes, ROWS)
    order = np.random.default_rng(0).permutation(CAPTIONS)[:pairs]
    expected = batch_by_batch(model, variables, codes, order)
    np.testing.assert_allclose(found.memory.slots, expected, rtol=0, atol=1e-6)
    assert np.abs(found.memory.slots - variables.memory.slots).max() > 0.01
    assert found.memory.written == variables.memory.written + pairs
    assert found.memory.active == variables.memory.active
    jax.tree.map(np.testing.assert_array_equal, found.params, variables.params)


def test_rebuilt_slots_depend_on_the_pairs(variables):
    model = hmgr(rebuild_memory=2)
    slots = model.finalize(variables, train_codes(), ROWS).memory.slots
    again = model.finalize(variables, train_codes(), ROWS).memory.slots
    np.testing.assert_array_equal(slots, again)
    other = ROWS | {"image": ROWS["image"][::-1]}
    assert np.abs(model.finalize(variables, train_codes(), other).memory.slots - slots).max() > 1e-3


def test_training_items_are_encoded_without_the_memory(variables):
    asleep = hmgr(rebuild_memory=2).before_finalize(variables)
    assert not asleep.memory.active
    np.testing.assert_array_equal(asleep.memory.slots, variables.memory.slots)


@pytest.mark.parametrize("memory", ["none", "learned", "episodic"])
def test_memories_that_are_not_kept_are_not_rebuilt(memory):
    model = hmgr(memory=memory, rebuild_memory=2)
    assert not model.needs_train
    kept = variables_of(model)
    assert model.finalize(kept, train_codes(), ROWS) is kept
    if memory == "none":
        assert model.before_finalize(kept) is kept


def test_rebuilding_is_off_by_default():
    for name in ("hmgr", "vse"):
        assert get_model(name).rebuild_memory == 0
        assert not get_model(name).needs_train


def test_evaluation_rebuilds_the_memory_and_leaves_the_run_unchanged(tmp_path):
    workdir = shutil.copytree(finished("hmgr"), tmp_path / "run")
    before = files(workdir)
    command = ["main", "--mode=evaluate", f"--workdir={workdir}"]
    assert main([*command, "--config.model.rebuild_memory=3"]) == 0
    found = json.loads((workdir / "evaluation-test.json").read_text())
    assert found["config_hash"] != results(workdir)["config_hash"]
    after = files(workdir)
    del after["evaluation-test.json"]
    assert after == before
    plain = hmgr_jax.load(workdir)

    def change(config):
        config.model.rebuild_memory = 3
        return config

    rebuilt = type(plain).load(workdir, change=change)
    slots = [run.variables.memory.slots for run in (plain, rebuilt)]
    assert np.abs(slots[1] - slots[0]).max() > 1e-3
    assert rebuilt.variables.memory.active
    split = rebuilt.open(("test",)).splits["test"]
    assert rebuilt.evaluate(split, ("worlds", "family")) == found["metrics"]
    codes = [run.encode("text", ["a red circle left of a blue square"]) for run in (plain, rebuilt)]
    assert np.abs(codes[1] - codes[0]).max() > 1e-5
