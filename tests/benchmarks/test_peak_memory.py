"""Peak memory is that of the process itself: a child of a large parent must not look large."""

import subprocess
import sys

import numpy as np
import pytest
from tiny_run import ROOT

pytestmark = pytest.mark.slow

MEASURED = """
from hmgr_jax.benchmarks.memory import peak_memory_bytes

print(peak_memory_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only getrusage is there")
def test_the_memory_of_the_parent_does_not_count():
    held = np.ones(400 << 20, np.uint8)  # written, so that it is resident
    child = [sys.executable, "-c", MEASURED]
    found = subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert 1 << 20 < int(found.stdout) < held.nbytes
