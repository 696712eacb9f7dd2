"""Runs resume exactly: their whole state and their metrics, across the edge of an epoch.

Dropout is on, and batches are read ahead. The loop sees no more of a system than its state, so that
one system of each kind of state does; a test checks that no registered system has another kind.
That every system's state is saved and restored exactly, and steps on, is part of the contract;
kills at other moments are in test_resume.py.
"""

import jax
import numpy as np
import pytest
from faulty_run import assert_as_unbroken
from tiny_run import config, finished, interrupted, run

from hmgr_jax.models import list_models
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("every_system"),
]
RESUMED = ("vse", "hmgr", "gin", "center3d")
"""No more than parameters; a memory; tables; statistics that training moves."""


def _kind(model):
    """Which parts of the state a system has: statistics, a memory, tables."""
    experiment = build(config(model=model))
    state = experiment.abstract_state()
    parts = [bool(jax.tree.leaves(part)) for part in (state.stats, state.memory)]
    return (*parts, experiment.model.needs_tables)


def test_no_system_has_another_kind_of_state():
    assert {_kind(model) for model in list_models()} == {_kind(model) for model in RESUMED}


@pytest.mark.parametrize("model", RESUMED)
def test_interrupted_after_step_8_and_resumed(tmp_path, model):
    workdir = interrupted(tmp_path / "run", finished(model))
    assert run(workdir, model=model) == 0
    assert_as_unbroken(workdir, model)
    states = [_last_state(folder, model) for folder in (workdir, finished(model))]
    for (path, a), b in zip(
        jax.tree.leaves_with_path(states[0]), jax.tree.leaves(states[1]), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def _last_state(workdir, model):
    template = build(config(model=model)).abstract_state()
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state, _, step = checkpoints.restore(template, 12)
    assert step == 12
    return jax.device_get(state)
