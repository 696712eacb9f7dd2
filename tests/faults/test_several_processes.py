"""Several processes are one run: the same numbers, stopped and resumed together."""

import json
import shutil
import signal

import numpy as np
import pytest
import tiny_run
import two_processes as two

from hmgr_jax.files.workdir import lock

pytestmark = pytest.mark.slow

STEPS = {"train__steps": 24, "train__eval_steps": 8}
"""Time enough for a signal to be agreed on."""
GENTLE = {"train__lr": 1e-4, "seed": 1}
"""Adam's first steps have the length of the rate whatever the gradient, so where a gradient is zero
but for rounding (several processes sum in another order) they magnify it: tenfold at 1e-3."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folders of runs of one process, by system and number of devices."""
    made = {}

    def of(name, devices=2, **options):
        if (name, devices) not in made:
            folder = made[name, devices] = tmp_path_factory.mktemp(name) / "run"
            two.run(folder, count=1, devices=devices, model=name, **STEPS, **options)
        return made[name, devices]

    return of


def test_two_processes_are_one(alone, tmp_path):
    """Batches, steps, evaluation and results; stopped by a signal to one of them on the way."""
    name = "imram"
    with two.Group(tmp_path, model=name, **STEPS) as group:
        group.wait_for("step 3/24")
        group.send(1)
        assert group.codes() == [0, 0], group.errors
    assert not (tmp_path / "results.json").exists()
    stopped = [line for line in group.outputs[0] if "Stopped by SIGTERM" in line]
    assert len(stopped) == 1
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"after step {saved}," in stopped[0]
    assert two.rows(tmp_path)[-1]["step"] <= saved

    two.run(tmp_path, model=name, **STEPS)
    expected = alone(name)
    two.assert_same_numbers(two.rows(tmp_path), two.rows(expected))
    found, wanted = two.results(tmp_path), two.results(expected)
    assert {k: v for k, v in found.items() if k != "metrics"} == {
        k: v for k, v in wanted.items() if k != "metrics"
    }
    assert found["metrics"] == pytest.approx(wanted["metrics"], rel=1e-5)


@pytest.mark.parametrize(("name", "count"), [("hmgr", 4), ("pcme", 2)])
def test_processes_with_a_memory_or_random_samples_are_one(alone, tmp_path, name, count):
    """Every step of the run and its results, at a rate that does not magnify rounding.

    A gradient jumps where the loss has a kink, and rounding may lie on its other side: after the
    first four steps a norm may differ at one step in ten.
    """
    two.run(tmp_path, count=count, model=name, **STEPS, **GENTLE)
    whole = alone(name, devices=count, **GENTLE)
    found, expected = two.rows(tmp_path), two.rows(whole)
    two.assert_same_numbers(found[:4], expected[:4])
    norms, wanted = ([row.pop("grad_norm", 0.0) for row in rows] for rows in (found, expected))
    two.assert_same_numbers(found, expected)
    assert np.isclose(norms, wanted, rtol=1e-5, atol=0).mean() >= 0.9, (norms, wanted)
    metrics = two.results(whole)["metrics"]
    assert two.results(tmp_path)["metrics"] == pytest.approx(metrics, rel=1e-5)


def test_goes_on_with_other_processes_and_devices_also_after_one_died(alone, tmp_path):
    """1 x 2 devices, then 2 x 2, then 1 x 1: the same batches, losses to 1e-5.

    When a process dies, the other one ends within seconds and names it, and the run goes on from
    the last checkpoint.
    """
    options = {"model": "hmgr", **STEPS, "train__save_steps": 3}
    with two.Group(tmp_path, count=1, devices=2, **options) as group:
        group.wait_for("step 3/24")
        group.send(0)
        assert group.codes() == [0], group.errors
    with two.Group(tmp_path, devices=2, **options) as group:
        group.wait_for("step 12/24")
        group.send(1, signal.SIGKILL)
        codes = group.codes()
        victim = group.processes[1].pid
    assert codes == [69, -signal.SIGKILL], group.errors
    assert f"pid {victim}) has sent no heartbeat" in group.said(0)
    assert "to resume from the last checkpoint" in group.said(0)
    assert not (tmp_path / "results.json").exists()
    two.run(tmp_path, count=1, **options)
    assert (tmp_path / "results.json").exists()
    two.assert_same_numbers(two.rows(tmp_path), two.rows(alone("hmgr")))


def test_a_configuration_error_in_one_process_ends_all(tmp_path):
    """Here process 1 was started with another value; both say which one differs."""
    with Mismatched(tmp_path / "run", model="vse") as group:
        codes = group.codes()
    assert codes == [2, 2], group.errors
    for index in range(2):
        assert "Process 1 has a different configuration from process 0" in group.said(index)


def test_evaluation_is_shared_and_compared(alone, tmp_path):
    """The metrics of one process; other data at one of them is refused, not published."""
    shutil.copytree(alone("hmgr"), tmp_path / "run")
    expected = two.results(tmp_path / "run")["metrics"]
    mode = {"model": "hmgr", **STEPS}
    two.run(tmp_path / "run", "--mode=evaluate", count=3, **mode)
    path = tmp_path / "run" / "evaluation-test.json"
    assert json.loads(path.read_text())["metrics"] == pytest.approx(expected, rel=1e-5)
    path.unlink()
    with OtherData(tmp_path / "run", "--mode=evaluate", **mode) as group:
        assert group.codes() == [2, 2], group.errors
    assert "Process 1 has a different configuration from process 0" in group.said(0)
    assert not path.exists()


class Mismatched(two.Group):
    """Process 1 trains with another learning rate."""

    def _start(self, index, arguments, devices):
        super()._start(
            index, [*arguments, "--config.train.lr=0.5"] if index else arguments, devices
        )


class OtherData(two.Group):
    """Process 1 has other scenes."""

    def _start(self, index, arguments, devices):
        changed = ["--config.data.worlds.seed=5"] if index else []
        super()._start(index, [*arguments, *changed], devices)


def test_a_folder_in_use_is_refused_by_all(tmp_path):
    shutil.copytree(tiny_run.interrupted(tmp_path / "copy"), tmp_path / "run")
    with lock(tmp_path / "run"), two.Group(tmp_path / "run", model="vse") as group:
        assert group.codes() == [2, 2], group.errors
    for index in range(2):
        assert "is in use by process" in group.said(index)
    assert "Traceback" not in group.said(0) + group.said(1)


def test_two_processes_split_a_memory(tmp_path):
    """Each of 2 x 2 devices holds a quarter: stopped and resumed, the same bytes."""
    split = {"model__slots": 33_000, "model__learned_reads": True, **STEPS}
    whole, stopped, one = (tmp_path / name for name in ("whole", "stopped", "one"))
    two.run(whole, devices=2, model="hmgr", **split)
    with two.Group(stopped, devices=2, model="hmgr", **split) as group:
        group.wait_for("step 10/24")
        group.send(1)
        assert group.codes() == [0, 0], group.errors
    assert not (stopped / "results.json").exists()
    two.run(stopped, devices=2, model="hmgr", **split)
    for name in ("metrics.jsonl", "results.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
    two.run(one, count=1, devices=4, model="hmgr", **split)
    two.assert_same_numbers(two.rows(whole), two.rows(one))
    # A near-tie may move one of the 12 pictures by a rank, which changes the mean rank alone.
    metrics = two.results(one)["metrics"]
    assert two.results(whole)["metrics"] == pytest.approx(metrics, rel=1e-5, abs=0.1)
