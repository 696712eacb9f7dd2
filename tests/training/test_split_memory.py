"""Runs whose memory the devices split: the same numbers on any number of devices."""

import shutil

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny_run import KilledError, config, kill_at_the_save_of, results, rows, run

from hmgr_jax.errors import UserError
from hmgr_jax.models import get_model
from hmgr_jax.models.base import Plan
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import build

SPLIT = {"model": "hmgr", "model__slots": 33_000}
"""Rounded up to 9 x 4,096 = 36,864."""
LEARNED = {"model__learned_reads": True, "model__visual_read": 0.3}


def trained(folder, devices, **options):
    assert run(folder, parallel__devices=devices, **SPLIT, **options) == 0
    return folder


def last_state(workdir):
    """The leaves of the last step on the host, by name."""
    experiment = build(config(parallel__devices=1, **SPLIT, **LEARNED))
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return jax.device_get(checkpoints.restore(experiment.abstract_state(), 12)[0])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on one device that reads in training too."""
    return trained(tmp_path_factory.mktemp("split") / "one", 1, **LEARNED)


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("split") / "eight", 8, **LEARNED)


def assert_same_run(found, expected):
    assert len(rows(found)) == len(rows(expected))
    for own, other in zip(rows(found), rows(expected), strict=True):
        assert own == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert results(found)["metrics"] == pytest.approx(results(expected)["metrics"], rel=1e-5)


def test_eight_devices_are_one(alone, on_eight):
    assert_same_run(on_eight, alone)
    own, other = last_state(on_eight), last_state(alone)
    np.testing.assert_array_equal(own.memory.bank.group, other.memory.bank.group)
    np.testing.assert_array_equal(own.memory.bank.read, other.memory.bank.read)
    assert own.memory.bank.read.any()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4),
        (own.params, own.memory.bank.vectors),
        (other.params, other.memory.bank.vectors),
    )
