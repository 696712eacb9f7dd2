"""The configurations to measure, and how their rows compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hmgr_jax.benchmarks.workload import Workload
from hmgr_jax.errors import UserError

Row = dict[str, Any]
MODES = ("weak", "strong")


@dataclass(frozen=True)
class Configuration:
    """The configuration of one row."""

    mode: str
    devices: int
    processes: int
    workload: Workload
    """Its ``batch`` is the batch of all devices together."""


def grid(
    workload: Workload,
    devices: Sequence[int],
    processes: Sequence[int] = (1,),
    modes: Sequence[str] = MODES,
) -> list[Configuration]:
    """Every combination of mode, processes and devices, with devices varying fastest.

    ``workload.batch`` is the batch of one device (weak) or of all (strong). Combinations in which
    the processes cannot share the devices evenly are left out.

    Raises:
        UserError: the devices cannot share the batch, or nothing is left to measure.
    """
    if min(*devices, *processes) < 1:
        raise UserError("--devices and --processes must be numbers of at least 1, such as 1,2,4.")
    found = [
        Configuration(mode, n, p, _sized(workload, mode, n))
        for mode in modes
        for p in sorted(set(processes))
        for n in sorted(set(devices))
        if n % p == 0
    ]
    if not found:
        raise UserError("No number in --devices is a multiple of one in --processes: change one.")
    return found


def _sized(workload: Workload, mode: str, devices: int) -> Workload:
    if mode == "weak":
        return replace(workload, batch=workload.batch * devices)
    if workload.batch % devices:
        raise UserError(f"--batch is {workload.batch}, which {devices} devices cannot share.")
    return workload


def compared(row: Row, before: Iterable[Row]) -> Row:
    """``row`` with its efficiency relative to the first row of its mode.

    ``efficiency`` is items per second and device over those of the first row (None without times).
    ``work_efficiency`` is the FLOPs per item of the first row over those of ``row``: 1.0 if the
    devices divide all work, less if each of them repeats some of it, or (weak) if an item is
    compared with a larger batch.
    """
    same = ("mode", "model", "dim", "dtype", "options")
    if "error" in row:
        return row
    fitting = (r for r in before if "error" not in r and all(r[k] == row[k] for k in same))
    base = next(fitting, row)
    speeds = [r["items_per_second"] / r["devices"] for r in (row, base) if r["items_per_second"]]
    work = [r["matmul_flops"] * r["devices"] / r["batch"] for r in (base, row)]
    return {
        **row,
        "efficiency": speeds[0] / speeds[1] if len(speeds) == 2 else None,
        "work_efficiency": work[0] / work[1],
    }
