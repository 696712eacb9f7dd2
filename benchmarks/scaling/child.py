"""One configuration in a process of its own: ``python -m benchmarks.scaling.child JSON``.

JAX fixes the number of CPU devices and the group of processes when it starts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks.scaling.grid import Configuration
from benchmarks.scaling.measure import measure
from hmgr_jax.benchmarks.workload import Workload
from hmgr_jax.command import guarded


def run(arguments: Sequence[str]) -> int:
    """Measure the configuration of the JSON (see ``children.start``) and write its row."""
    job = json.loads(arguments[0])
    mode, devices, processes, workload = job["configuration"]
    local = devices // processes
    jax.config.update("jax_num_cpu_devices", local)
    if job["platform"]:
        jax.config.update("jax_platforms", job["platform"])
    if processes > 1:
        index = job["index"]
        own = list(range(index * local, (index + 1) * local))
        jax.distributed.initialize(job["address"], processes, index, local_device_ids=own)
    configuration = Configuration(mode, devices, processes, Workload(**workload))
    row = measure(configuration, **job["how"])
    if row and jax.process_index() == 0:
        Path(job["row_file"]).write_text(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(run, None))
