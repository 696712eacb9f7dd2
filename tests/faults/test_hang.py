"""A run that hangs shows where and ends; one that is slow, compiles or was suspended goes on."""

import signal
import subprocess
import sys
import time

import pytest
from faulty_run import assert_as_unbroken, end, start
from tiny_run import ROOT, run

from hmgr_jax.distributed import watchdog
from hmgr_jax.evaluation.evaluate import Evaluator

pytestmark = pytest.mark.slow

HANG = """
def reading_from_a_dead_disk():
    time.sleep(1000)

at_step(6, reading_from_a_dead_disk)
"""


def test_a_hang_is_shown_and_ended_and_the_run_goes_on(tmp_path):
    workdir = tmp_path / "run"
    code, out, errors = end(start(HANG, workdir, train__hang_seconds=3))
    assert code == watchdog.EXIT_CODE
    assert "step 5/12" in out
    assert "step 6/12" not in out
    assert errors[-1].startswith("error: No progress for 3 s: ")
    for stacks in (errors, (workdir / "hang.txt").read_text().splitlines()):
        assert any("reading_from_a_dead_disk" in line for line in stacks)
        assert sum(line.startswith(("Thread", "Current thread")) for line in stacks) > 1
    assert run(workdir) == 0
    assert_as_unbroken(workdir)


WATCHED = """
import sys, time
from pathlib import Path
from hmgr_jax.distributed import watchdog

with watchdog.Watchdog(float(sys.argv[1]), Path(sys.argv[2])):
    print("ready", flush=True)
    for step in range(int(sys.argv[3])):
        time.sleep(0.2)
        watchdog.report_progress(compiling=sys.argv[4] == "compiling")
    print("silent", flush=True)
    time.sleep(float(sys.argv[5]))
print("done", flush=True)
time.sleep(0.5)
"""


def _watched(folder, seconds, steps, kind, silence):
    arguments = map(str, (seconds, folder, steps, kind, silence))
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("seconds", "steps", "kind", "silence", "ends"),
    [
        (0.6, 8, "step", 0, True),  # signs of life come in time
        (0.6, 1, "step", 30, False),
        (1, 1, "compiling", 2, True),  # which may take longer
        (0.3, 1, "compiling", 30, False),  # but not for ever
        (0.3, 0, "step", 0.6, True),  # nor may the beginning
        (0, 1, "step", 1, True),  # switched off
    ],
)
def test_how_long_silence_may_last(tmp_path, seconds, steps, kind, silence, ends):
    code, out, errors = end(_watched(tmp_path, seconds, steps, kind, silence))
    assert code == (0 if ends else watchdog.EXIT_CODE)
    assert out.endswith("done\n") == ends
    assert bool(errors) == (tmp_path / "hang.txt").exists() == (not ends)


def test_a_suspended_process_does_not_hang(tmp_path):
    process = _watched(tmp_path, 1, 10, "step", 0)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    process.send_signal(signal.SIGCONT)
    code, out, errors = end(process)
    assert (code, out[-5:], errors) == (0, "done\n", [])


def test_a_folder_that_cannot_be_written_does_not_keep_it_alive(tmp_path):
    code, _, errors = end(_watched(tmp_path / "none", 0.2, 1, "step", 30))
    assert code == watchdog.EXIT_CODE
    assert errors[-1].startswith("error: No progress for 0.2 s")


def test_steps_batches_and_tiles_are_signs_of_life(tmp_path, monkeypatch):
    """A long evaluation is not silent."""
    signs, real, during = [], Evaluator.metrics, []
    monkeypatch.setattr(watchdog.Watchdog, "report_progress", lambda self, **_: signs.append(1))

    def metrics(self, *arguments, **options):
        before = len(signs)
        found = real(self, *arguments, **options)
        during.append(len(signs) - before)
        return found

    monkeypatch.setattr(Evaluator, "metrics", metrics)
    assert run(tmp_path / "run", eval__batch_size=4, eval__tile=4) == 0
    # dev: 2 batches of images, 10 of captions, 2 x 10 tiles; test: 3, 15 and 3 x 15
    assert during[0] >= 32
    assert during[-1] >= 63
    assert len(signs) - sum(during) >= 12
    assert not watchdog._watching
