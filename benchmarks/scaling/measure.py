"""The row of one configuration, on the devices of this process and its peers."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

from benchmarks.scaling.collectives import collectives
from benchmarks.scaling.grid import Configuration, Row
from hmgr_jax.benchmarks.program import Program, matmul_rate, xla_counts
from hmgr_jax.distributed.parallel import DATA
from hmgr_jax.errors import UserError

PERCENTILES = (50, 90, 99)


def measure(
    configuration: Configuration,
    repeats: int = 20,
    matmul_size: int = 0,
    compile_only: bool = False,
) -> Row | None:
    """The row of a configuration on the first devices; every process calls it.

    Steps are timed one by one, each to its end, so that a time includes dispatch from Python.
    ``utilisation`` is our count of FLOPs per second and device over the rate of a plain matrix
    product of the same type on one device, measured before and after. ``compile_seconds`` includes
    tracing; a compile cache (JAX_COMPILATION_CACHE_DIR) shortens them.

    Returns:
        a row for JSON; None in a process whose devices take no part.

    Raises:
        UserError: the configuration has more devices than this machine.
    """
    workload, devices = configuration.workload, configuration.devices
    if devices > len(jax.devices()):
        found = f"{len(jax.devices())} of the kind {jax.devices()[0].device_kind}"
        raise UserError(f"{devices} devices were asked for, but there are {found}: ask for fewer.")
    mesh = _mesh(devices)
    members = {device.process_index for device in mesh.devices.flat}
    if jax.process_index() not in members:
        return None
    program = Program(workload, mesh)
    compiled, compile_seconds = program.compiled()
    moved, unknown_loops = collectives(compiled.as_text())
    counts = xla_counts(compiled)
    held = counts["memory_bytes"]
    held["total"] = held["argument"] + held["output"] - held["alias"] + held["temp"]
    row = _described(configuration, mesh) | {
        "processes": len(members),
        "parameters": program.parameters(),
        "compile_seconds": compile_seconds,
        "matmul_flops": program.flops(),
        **counts,
        "collectives": moved,
        "sent_bytes": sum(kind["sent_bytes"] for kind in moved.values()),
        "loops_of_unknown_length": unknown_loops,
    }
    speed = dict.fromkeys(("seconds", "items_per_second", "matmul_rate", "utilisation"))
    if not compile_only:
        speed = _speed(row, program, compiled, repeats, matmul_size)
    return row | speed | {"load": os.getloadavg()[0]}


def measure_on_hosts(configuration: Configuration, how: dict[str, Any]) -> Row | None:
    """`measure` with the options ``how`` on the first devices of all hosts.

    Hosts that take no part wait for the others and get None.
    """
    row = measure(configuration, **how)
    multihost_utils.sync_global_devices("configuration")
    return row


def _mesh(devices: int) -> Mesh:
    """A mesh of the first devices, ordered by process; training uses all devices instead."""
    found = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.asarray(found[:devices]), (DATA,), axis_types=(AxisType.Auto,))


def _described(configuration: Configuration, mesh: Mesh) -> Row:
    workload, first = configuration.workload, mesh.devices.flat[0]
    return {
        "benchmark": "scaling",
        "mode": configuration.mode,
        "model": workload.model,
        "batch": workload.batch,
        "dim": workload.dim,
        "dtype": workload.dtype,
        "regions": [workload.regions, workload.region_dim],
        "words": workload.words,
        "lengths": workload.lengths,
        "options": workload.options,
        "devices": configuration.devices,
        # CPU devices share the cores of one machine: their times say nothing about scaling.
        "virtual": first.platform == "cpu",
        "platform": f"{first.platform} {first.device_kind}",
        "jax": jax.__version__,
    }


def _speed(row: Row, program: Program, compiled: Any, repeats: int, matmul_size: int) -> Row:
    rate = matmul_rate(row["dtype"], matmul_size)
    times = program.times(compiled, repeats)
    rate = max(rate, matmul_rate(row["dtype"], matmul_size))
    found = np.percentile(times, PERCENTILES).tolist()
    return {
        "seconds": {f"p{p}": seconds for p, seconds in zip(PERCENTILES, found, strict=True)},
        "repeats": repeats,
        "items_per_second": row["batch"] / found[0],
        "matmul_rate": rate,
        "utilisation": row["matmul_flops"] / found[0] / rate,
    }
