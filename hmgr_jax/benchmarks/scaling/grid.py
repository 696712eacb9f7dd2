"""What is measured: the same work on ever more devices, and how its rows compare."""

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
    """One row to be."""

    mode: str
    devices: int
    processes: int
    workload: Workload
    """Its ``batch`` is that of all devices together."""


def grid(
    workload: Workload,
    devices: Sequence[int],
    processes: Sequence[int] = (1,),
    modes: Sequence[str] = MODES,
) -> list[Configuration]:
    """Every mode, number of processes and of devices, devices growing fastest.

    ``workload.batch`` is the batch of one device (weak) or of all (strong). Where the processes
    cannot share the devices evenly there is no configuration.

    Raises:
        UserError: a batch that the devices cannot share, or nothing left to measure.
    """
    if min(*devices, *processes) < 1:
        raise UserError("--devices and --processes are numbers of at least 1, such as 1,2,4.")
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
    """``row`` with what it keeps of the first row of its mode.

    ``efficiency`` compares items a second and device (None without times), ``work_efficiency`` the
    FLOPs that an item costs, there over here: 1.0 where the devices divide all work, less where
    each of them repeats some of it, or (weak) where an item is compared with a larger batch.
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
