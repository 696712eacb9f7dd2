"""A source larger than the memory that is allowed: bounded, and killed half way it goes on."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_run import ROOT

GIGABYTES = 2
REGIONS, FEATURES = 36, 2048
LIMIT = 700 << 20
MEASURED = """
import sys
from hmgr_jax import prepare
from hmgr_jax.benchmarks.memory import peak_memory_bytes

code = prepare.main(sys.argv)
print(peak_memory_bytes())
sys.exit(code)
"""


def write_sparse(root, gigabytes=GIGABYTES):
    """Train of float32 zeros that take no room on the disk; row i begins with i % 2000."""
    root.mkdir()
    rows = int(gigabytes * 1e9) // (REGIONS * FEATURES * 4)
    shape = (rows, REGIONS, FEATURES)
    file = np.lib.format.open_memmap(root / "train_ims.npy", "w+", np.float32, shape)
    file[:, 0, 0] = np.arange(rows) % 2000
    del file
    (root / "train_caps.txt").write_text("".join(f"a picture {i}\n" for i in range(rows)))
    return rows


@pytest.mark.slow
def test_memory_is_bounded_and_a_killed_run_goes_on(tmp_path):
    rows = write_sparse(tmp_path / "raw")
    out = tmp_path / "out"
    command = [sys.executable, "-c", MEASURED, "scan", "--source", str(tmp_path / "raw")]
    command += ["--out", str(out)]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    record = tmp_path / "out.partial" / ".progress.json"
    done = 0
    while done == 0 and first.poll() is None:
        time.sleep(0.2)
        done = json.loads(record.read_text())["written"]["train"]["rows"] if record.exists() else 0
    first.send_signal(signal.SIGKILL)
    first.wait()
    if not out.exists():  # else it was done before a record of a part of it
        assert 0 < json.loads(record.read_text())["written"]["train"]["rows"] <= rows
    second = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=600)
    assert second.returncode == 0
    assert int(second.stdout.splitlines()[-1]) < LIMIT
    made = np.load(out / "train_ims.npy", mmap_mode="r")
    assert made.dtype == np.float16
    wanted = (np.arange(rows) % 2000).astype(np.float16)
    np.testing.assert_array_equal(made[:, 0, 0], wanted)
