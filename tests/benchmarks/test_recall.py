"""The recall benchmark: a small run here, the size of COCO 5K alone in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hmgr_jax.benchmarks.recall import run

pytestmark = pytest.mark.slow


def test_small_run():
    row = run(images=40, captions=200, dim=16, repeats=2)
    assert json.loads(json.dumps(row)) == row
    assert row["flops"] == 2 * 40 * 200 * 16
    assert row["seconds"] > 0
    assert row["peak_memory_bytes"] > 50e6
    assert row["metrics"]["i2t/R@10"] > 25  # chance


@pytest.mark.slow
def test_coco_5k_within_20_seconds_and_2_gb():
    code = (
        "import json; from hmgr_jax.benchmarks.recall import run; print(json.dumps(run(repeats=1)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    row = json.loads(done.stdout)
    assert row["first_seconds"] < 20
    assert row["peak_memory_bytes"] < 2e9
