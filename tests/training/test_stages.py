"""Stretches of training: frozen parts rest, a fresh optimiser forgets, and resume stays exact."""

import jax
import numpy as np
import pytest
from tiny_run import KilledError, config, kill_at_the_save_of, rows

from hmgr_jax import modes
from hmgr_jax.errors import UserError
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import build

FIRST = {"steps": 6, "frozen": ("image",)}
SECOND = {"steps": 6, "frozen": ("words",), "fresh_optimizer": True}


def _staged(*stages, **options):
    found = config(train__save_steps=3, train__eval_steps=12, **options)
    found.train.stages = stages
    return found


def _keep_all(monkeypatch):
    """The states of all steps, by step."""
    states = {}
    real = Checkpoints.save

    def save(self, step, state, *arguments):
        states[step] = jax.device_get(state)
        real(self, step, state, *arguments)

    monkeypatch.setattr(Checkpoints, "save", save)
    return states


def _changed(a, b):
    """Which of three parts of the parameters differ."""
    leaves = {
        "image": (a["image"], b["image"]),
        "words": (a["text"]["words"]["vectors"], b["text"]["words"]["vectors"]),
        "gru": (a["text"]["words"]["gru"], b["text"]["words"]["gru"]),
    }
    return {name for name, (x, y) in leaves.items() if not _equal(x, y)}


def _equal(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.slow
def test_stages(tmp_path, monkeypatch):
    states = _keep_all(monkeypatch)
    staged = _staged(FIRST, SECOND)
    assert modes.train_run(staged, tmp_path / "whole") is not None
    counts = {step: int(state.optimizer.count) for step, state in states.items()}
    assert counts == {3: 3, 6: 6, 9: 3, 12: 6}
    assert _changed(states[3].params, states[6].params) == {"words", "gru"}
    assert _changed(states[6].params, states[12].params) == {"image", "gru"}

    # To go on from the first step of the second stage, and from inside it: the same rows.
    for step in (9, 12):
        kill_at_the_save_of(monkeypatch, step)
        with pytest.raises(KilledError):
            modes.train_run(staged, tmp_path / "killed")
        monkeypatch.undo()
    assert modes.train_run(staged, tmp_path / "killed") is not None
    whole, killed = ((tmp_path / name / "metrics.jsonl") for name in ("whole", "killed"))
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_without_a_fresh_optimizer_the_moments_go_on(tmp_path, monkeypatch):
    states = _keep_all(monkeypatch)
    staged = _staged({"steps": 1}, {"steps": 1, "lr_factors": {"image": 0.0}}, train__steps=3)
    staged.train.save_steps = 1
    assert modes.train_run(staged, tmp_path / "run") is not None
    assert [int(states[step].optimizer.count) for step in (1, 2, 3)] == [1, 2, 3]
    assert [row["step"] for row in rows(tmp_path / "run") if "loss" in row] == [1, 2, 3]
    # The last stage extends to train.steps; a factor of 0 freezes too.
    assert _changed(states[1].params, states[3].params) == {"words", "gru"}


@pytest.mark.slow
def test_a_part_that_thaws_begins_with_fresh_moments(tmp_path, monkeypatch):
    states = _keep_all(monkeypatch)
    staged = _staged({"steps": 2, "lr_factors": {"image": 0.0}}, {"steps": 2}, train__steps=4)
    staged.train.save_steps = 1
    assert modes.train_run(staged, tmp_path / "run") is not None
    assert [int(states[step].optimizer.count) for step in (1, 2, 3, 4)] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (({"frozen": ()},), "needs steps, an integer from 1, it has None"),
        (({"steps": 1.5},), "needs steps, an integer from 1, it has 1.5"),
        (({"steps": 3, "freeze": ()},), "no key of a stage 'freeze'; did you mean 'frozen'"),
        (
            (3,),
            "holds dicts with steps, frozen, lr_factors, fresh_optimizer, own_schedule, lr_factor, "
            "not 3",
        ),
        (({"steps": 12}, {"steps": 1}), "have 12 steps, but train.steps is 12"),
        (({"steps": 1, "frozen": ("txt",)},), "no part of vse in frozen of a stage 'txt'"),
        (({"steps": 1, "lr_factors": {"wrds": 1.0}},), "in lr_factors of a stage 'wrds'"),
    ],
)
def test_rejects_bad_stages(stages, sentence):
    with pytest.raises(UserError, match=sentence):
        build(_staged(*stages))
