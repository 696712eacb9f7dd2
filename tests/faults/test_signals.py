"""A wish to stop is never lost, wherever in a run it comes, and however often."""

import os
import signal

import pytest
from faulty_run import assert_as_unbroken, end, start
from tiny_run import run

from hmgr_jax.models.hmgr import HMGR
from hmgr_jax.training import loop
from hmgr_jax.training.checkpoint import Checkpoints

pytestmark = pytest.mark.slow


def _before(monkeypatch, owner, name, signals=1):
    """So many SIGTERM to this process when ``owner.name`` is called for the first time."""
    real, left = getattr(owner, name), [signal.SIGTERM] * signals

    def call(*arguments, **options):
        while left:
            os.kill(os.getpid(), left.pop())
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def test_a_signal_while_opening_restoring_or_compiling(tmp_path, monkeypatch, capsys):
    """Each start is stopped in another window, makes the step that it has begun and saves it."""
    windows = [(loop, "build"), (Checkpoints, "restore"), (HMGR, "loss"), (HMGR, "apply_tower")]
    for step, window in enumerate(windows, start=1):
        _before(monkeypatch, *window)
        assert run(tmp_path / "run") == 0, window
        monkeypatch.undo()
        said = capsys.readouterr().out
        assert f"Stopped by SIGTERM after step {step}, which is saved" in said, window
        assert (tmp_path / "run" / "checkpoints" / str(step)).is_dir()
    assert run(tmp_path / "run") == 0
    assert_as_unbroken(tmp_path / "run")


def test_a_second_signal_does_not_disturb_the_saving(tmp_path, monkeypatch, capfd):
    _before(monkeypatch, loop, "shard", signals=2)
    assert run(tmp_path / "run") == 0
    monkeypatch.undo()
    said = capfd.readouterr()
    assert "Stopped by SIGTERM after step 1, which is saved" in said.out
    assert said.err == "warning: Saving, then stopping; one more signal ends this at once.\n"
    assert run(tmp_path / "run") == 0
    assert_as_unbroken(tmp_path / "run")


THRICE = """
from hmgr_jax.training.checkpoint import Checkpoints

real = Checkpoints.save
def save(self, step, *arguments):
    real(self, step, *arguments)
    if step == 6:  # on its way to the disk
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

Checkpoints.save = save
at_step(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
"""


def test_a_third_signal_ends_the_run_and_nothing_saved_is_lost(tmp_path):
    code, out, _ = end(start(THRICE, tmp_path / "run"))
    assert code == -signal.SIGTERM
    assert "step 6/12" in out
    assert "Stopped by" not in out
    assert (tmp_path / "run" / "checkpoints" / "4").is_dir()
    assert run(tmp_path / "run") == 0
    assert_as_unbroken(tmp_path / "run")
