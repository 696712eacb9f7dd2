"""Runs whose memory the devices split: the same numbers on any number of devices."""

import jax
import numpy as np
import pytest
from tiny_run import config, interrupted, results, rows, run

from hmgr_jax.errors import UserError
from hmgr_jax.leaves import by_name
from hmgr_jax.models.hmgr import MOST_SLOTS, ROUND
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import build

SPLIT = {"model": "hmgr", "model__slots": 33_000}
"""Rounded up to 9 x 4,096 = 36,864."""
LEARNED = {"model__learned_reads": True, "model__visual_read": 0.3}


def trained(folder, devices, **options):
    assert run(folder, parallel__devices=devices, **SPLIT, **options) == 0
    return folder


def last_state(workdir):
    """{name: leaf} of the last step, on the host."""
    experiment = build(config(parallel__devices=1, **SPLIT, **LEARNED))
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return by_name(jax.device_get(checkpoints.restore(experiment.abstract_state(), 12)[0]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """{devices: folder of a run that reads in training too}."""
    made = {}

    def of(devices):
        if devices not in made:
            folder = tmp_path_factory.mktemp("split") / "run"
            made[devices] = trained(folder, devices, **LEARNED)
        return made[devices]

    return of


def assert_same_run(found, expected):
    assert len(rows(found)) == len(rows(expected))
    for own, other in zip(rows(found), rows(expected), strict=True):
        assert own == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert results(found)["metrics"] == pytest.approx(results(expected)["metrics"], rel=1e-5)


@pytest.mark.slow
def test_eight_devices_are_one(whole):
    assert_same_run(whole(8), whole(1))
    found, expected = last_state(whole(8)), last_state(whole(1))
    assert expected["memory/bank/read"].any()
    assert len(expected["memory/bank/group"]) == 9 * ROUND
    for name, leaf in expected.items():
        # Softmax does not depend on this bias: its gradient is rounding, which Adam magnifies.
        if leaf.dtype == np.float32 and "pool/weight/bias" not in name:
            np.testing.assert_allclose(found[name], leaf, rtol=0, atol=1e-4, err_msg=name)
        elif leaf.dtype != np.float32:
            np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def resumed(folder, first, then):
    """``first``, interrupted after step 8, goes on with ``then`` devices."""
    return trained(interrupted(folder, first), then, **LEARNED)


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_the_same_bytes(whole, tmp_path):
    found, expected = resumed(tmp_path / "run", whole(8), 8), whole(8)
    for name in ("metrics.jsonl", "results.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    jax.tree.map(np.testing.assert_array_equal, last_state(found), last_state(expected))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("first", "then"), [(8, 1), (1, 8)])
def test_a_run_goes_on_with_other_devices(whole, tmp_path, first, then):
    assert_same_run(resumed(tmp_path / "run", whole(first), then), whole(1))


def test_the_size_of_a_split_memory_is_rounded_up_for_the_devices():
    for slots, expected in ((30_000, 30_000), (MOST_SLOTS, MOST_SLOTS), (33_000, 9 * ROUND)):
        model = build(config(model="hmgr", model__slots=slots)).model
        assert model.slots == expected
        assert model.split_slots == (0 if expected <= MOST_SLOTS else expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parallel__mapper": "pmap"}, "pmap, which cannot split a memory of 36,864 slots"),
        ({"parallel__devices": 5}, "36,864 slots cannot be split evenly over 5 devices"),
    ],
    ids=["pmap", "devices"],
)
def test_runs_that_cannot_split_the_memory_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        build(config(**SPLIT, **options))
