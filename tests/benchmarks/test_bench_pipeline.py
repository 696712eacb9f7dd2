"""Memory of reading a feature file much larger than it: sparse, so that it takes no disk."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_run import ROOT, arguments, scan_folder

from hmgr_jax.benchmarks.pipeline import write_folder
from hmgr_jax.files.npy_rows import NpyRows

GIGABYTES = 20
IMAGES = GIGABYTES * 10**9 // (36 * 2048 * 2)
MOST = 3 * 10**9
PEAK = "from hmgr_jax.benchmarks.memory import peak_memory_bytes; print(peak_memory_bytes())"


def test_the_files_that_are_read(tmp_path):
    write_folder(tmp_path, 7, 2, 3, sparse=False)
    file = NpyRows(tmp_path / "train_ims.npy")
    values = file.gather(np.arange(7))
    assert (file.dtype, values.shape) == (np.float16, (7, 2, 3))
    assert 0 <= values.min() < values.max() <= 1
    assert (tmp_path / "train_caps.txt").read_text().count("\n") == 7
    write_folder(tmp_path, 1000, 36, 2048, sparse=True)
    path = tmp_path / "train_ims.npy"
    assert path.stat().st_size > 147e6
    assert path.stat().st_blocks * 512 < 1e6
    assert not NpyRows(path).gather(np.array([0, 999])).any()


def _peak(code, *argv):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; {PEAK}", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1]), done.stdout


@pytest.mark.slow
def test_reading_20_gb_takes_less_than_3():
    bench = f"pipeline --sparse-gb {GIGABYTES} --count 200".split()
    _, out = _peak("from hmgr_jax.bench import main; assert main(sys.argv) == 0", *bench)
    row = json.loads(out.splitlines()[0])
    assert row["shape"] == [IMAGES, 36, 2048]
    assert row["peak_memory_bytes"] < MOST


@pytest.mark.slow
def test_training_from_20_gb_takes_less_than_3(tmp_path):
    """The whole loop on such a file: fingerprint, batches of 128, evaluation, checkpoints."""
    root = scan_folder(tmp_path / "data", images=(8, 256, 256), regions=36, features=2048)
    write_folder(root, IMAGES, 36, 2048, sparse=True)
    (root / "train_ids.txt").unlink()
    values = {
        "data__source": "scan",
        "data__root": root,
        "data__batching": "rows",
        "train__batch_size": 128,
        "eval__protocols": "plain",
        "eval__dev_protocols": "plain",
    }
    train = "from hmgr_jax.main import main; assert main(sys.argv) == 0"
    peak, out = _peak(train, *arguments(tmp_path / "run", **values)[1:])
    assert f"{IMAGES} train rows" in out
    assert Path(tmp_path / "run" / "results.json").exists()
    assert peak < MOST
