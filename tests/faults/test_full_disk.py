"""A disk that is full when a run saves: one sentence, nothing lost, and on when there is room."""

import json

import pytest
from faulty_run import assert_as_unbroken, end, start
from tiny_run import run

from hmgr_jax.training.checkpoint import Checkpoints

pytestmark = pytest.mark.slow

# A limit on the size of files stands for the full disk: writes fail in the same places.
FULL = """
import resource

def fill():
    time.sleep(2)  # the checkpoint of step 4 is on its way
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, resource.RLIM_INFINITY))

at_step(6, fill)
"""


def test_a_run_on_a_full_disk(tmp_path):
    workdir = tmp_path / "run"
    code, _, errors = end(start(FULL, workdir))
    assert code == 2
    error = errors[-1]
    assert error.startswith("error: A checkpoint of 0.1 MB could not be written to "), errors
    assert not any("Traceback" in line for line in errors), errors
    assert " MB free" in error
    assert error.endswith("run the same command to resume; the steps [4] are complete.")
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.newest() == 4
    assert json.loads((workdir / "digests" / "4.json").read_text())["files"]
    assert run(workdir) == 0
    assert_as_unbroken(workdir)
