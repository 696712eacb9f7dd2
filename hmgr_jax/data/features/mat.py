"""Arrays of a .mat up to version 7, read by scipy in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from hmgr_jax.data.features import mat_child
from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import read_npz
from hmgr_jax.files.reading import PACKED

LEAST_MEMORY = 2 << 30
"""Address space of the process for small files, in bytes."""
SECONDS = 60
"""Time of the process for small files."""
BYTES_A_SECOND = 1 << 20
ADVICE = "copy it again, or save its arrays as .npz."


def read_mat(path: Path) -> dict[str, np.ndarray | None]:
    """{name: array}; sparse matrices as dense ones, None for cells, structures and objects.

    Raises:
        UserError: the file is damaged, or takes memory or time out of proportion to its size.
    """
    size = path.stat().st_size
    limits = (LEAST_MEMORY + PACKED * size, SECONDS + size // BYTES_A_SECOND)
    with tempfile.TemporaryDirectory(prefix="hmgr-jax-") as folder:
        out = Path(folder, "arrays.npz")
        # -P: the folder of the script is not searched for modules.
        command = [sys.executable, "-P", mat_child.__file__, path.resolve(), out, *limits]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        made = subprocess.run(
            list(map(str, command)), capture_output=True, env=environment, check=False
        )
        if made.returncode:
            lines = made.stderr.decode("utf-8", "replace").strip().splitlines() or [""]
            why = lines[-1][:160]
            if made.returncode < 0:
                why = f"scipy broke down or took too long, signal {-made.returncode}"
            raise UserError(f"{path} cannot be read as .mat ({why}): {ADVICE}")
        found = read_npz(out, ADVICE)
    return {
        name.removesuffix("!"): None if name.endswith("!") else found[f"a{k}"]
        for k, name in enumerate(found["names"].tolist())
    }
