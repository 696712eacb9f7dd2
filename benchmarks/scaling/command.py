"""How a training step scales over devices and processes.

    python launch/scaling.py --model hmgr --batch 128 --dim 1024 --devices 1,2,4,8

--batch is the batch of one device with --weak and of all of them with --strong; without either,
both are measured. Every configuration runs in processes of its own: on CPU with that many virtual
devices (their times say nothing about scaling, so they are marked), elsewhere on the first of the
devices present. On a cluster, start the same command on every host with --hosts auto, or with
--hosts HOST:PORT,N,I for process I of N; it then runs over all their devices.

--compile-only counts FLOPs, memory and the bytes between devices without running a step, so the
configuration may be far larger than this machine.

The command writes rows.jsonl (one row per configuration) and scaling.png to --out.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.scaling.grid import MODES, Configuration, Row, compared, grid
from hmgr_jax.benchmarks.workload import Workload
from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError

OPTIONS = {
    "devices": "1,2,4,8",
    "processes": "1",
    "repeats": 20,
    "matmul_size": 0,
    "platform": "",
    "hosts": "",
    "out": "",
}
SWITCHES = ("weak", "strong", "compile_only")
SIZES = {field.name: field.default for field in dataclasses.fields(Workload)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for invalid options or a configuration that failed."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Measure every configuration of the command line."""
    flags = _parser().parse(arguments)
    workload = Workload(**{name: getattr(flags, name) for name in SIZES})
    workload.system()  # refuses an unknown name before anything starts
    if flags.repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {flags.repeats}.")
    modes = [mode for mode in MODES if getattr(flags, mode)] or MODES
    plan = grid(workload, _numbers(flags, "devices"), _numbers(flags, "processes"), modes)
    rows = _measured(plan, flags)
    failed = [row for row in rows if "error" in row]
    if failed:
        raise UserError(f"{len(failed)} of {len(rows)} could not be measured: {failed[0]['error']}")
    return 0


def _measured(plan: Sequence[Configuration], flags: Namespace) -> list[Row]:
    """The rows of the plan; an empty list in every process but the first."""
    how = {name: getattr(flags, name) for name in ("repeats", "matmul_size", "compile_only")}
    if not flags.hosts:
        from benchmarks.scaling.children import in_children

        return _rows(plan, flags, partial(in_children, platform=flags.platform, how=how))
    from benchmarks.scaling.measure import measure_on_hosts
    from hmgr_jax.distributed.hosts import is_first, joined

    with joined(flags.hosts):
        if is_first():
            return _rows(plan, flags, partial(measure_on_hosts, how=how))
        for configuration in plan:
            measure_on_hosts(configuration, how)
    return []


def _rows(
    plan: Sequence[Configuration], flags: Namespace, measured: Callable[[Configuration], Row | None]
) -> list[Row]:
    """Write every row when it is measured, and show all of them at the end."""
    rows: list[Row] = []
    path = _rows_file(flags)
    for configuration in plan:
        row = measured(configuration)
        assert row is not None  # the first process takes part in every configuration
        rows.append(compared(row, rows))
        with path.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(f"{len(rows)}/{len(plan)} {_progress_line(rows[-1])}", flush=True)
    show(rows, path)
    return rows


def show(rows: Sequence[Row], path: Path) -> None:
    """Print the table and draw the picture beside ``path``, if rich and matplotlib are there."""
    if importlib.util.find_spec("rich"):
        from benchmarks.scaling.table import print_tables

        print_tables(rows)
    if importlib.util.find_spec("matplotlib"):
        from benchmarks.scaling.picture import draw

        print(f"picture: {draw(rows, path.with_name('scaling.png'))}")
    print(f"rows: {path}")


def _progress_line(row: Row) -> str:
    where = f"{row['mode']}: {row['devices']} devices in {row['processes']} processes"
    return f"{where}: {row['error']}" if "error" in row else where


def _rows_file(flags: Namespace) -> Path:
    named = f"runs/scaling-{flags.model}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path(flags.out or named) / "rows.jsonl"
    if path.exists():
        raise UserError(f"{path} exists: give another folder as --out; nothing is overwritten.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _numbers(flags: Namespace, name: str) -> list[int]:
    text = getattr(flags, name)
    if not text or not all(part.strip().isdigit() for part in text.split(",")):
        raise UserError(f"--{name} must list numbers such as 1,2,4, got {text!r}.")
    return [int(part) for part in text.split(",")]


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    for name, default in (SIZES | OPTIONS).items():
        flag, kind = f"--{_dashed(name)}", type(default)
        parser.add_argument(flag, type=kind, default=default, help="default %(default)r")
    for name in SWITCHES:
        parser.add_argument(f"--{_dashed(name)}", action="store_true")
    return parser


def _dashed(name: str) -> str:
    return name.replace("_", "-")
