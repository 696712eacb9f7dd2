"""Rows of the scaling benchmark as tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.scaling.grid import Row

Columns = Mapping[str, Callable[[Row], Any]]

SPEED: Columns = {
    "items/s": lambda row: f"{row['items_per_second']:,.0f}",
    "eff.": lambda row: f"{row['efficiency']:.0%}",
    "p50 ms": lambda row: _milliseconds(row, "p50"),
    "p90 ms": lambda row: _milliseconds(row, "p90"),
    "p99 ms": lambda row: _milliseconds(row, "p99"),
    "util.": lambda row: f"{row['utilisation']:.1%}",
}
WORK: Columns = {
    "compile s": lambda row: f"{row['compile_seconds']:.1f}",
    "GFLOP": lambda row: _flops(row["matmul_flops"]),
    "XLA's": lambda row: _flops(row["xla_flops"]),
    "work eff.": lambda row: f"{row['work_efficiency']:.1%}",
    "memory MB": lambda row: f"{row['memory_bytes']['total'] / 1e6:,.0f}",
}
"""``work eff.``: see ``grid.compared``."""


def print_tables(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print times, if measured, and what one device computes, holds and sends."""
    console = console or Console()
    good = [row for row in rows if "error" not in row]
    timed = [row for row in good if row["seconds"]]
    if timed:
        console.print(_table("speed", timed, SPEED))
    if any(row["virtual"] for row in timed):
        console.print("* virtual CPU devices share this machine's cores: no measure of scaling\n")
    if good:
        console.print(_table("one device: matrix products and memory", good, WORK))
        console.print(_table("one device: MB it sends a step", good, _sent_by_kind(good)))
    if any(row["loops_of_unknown_length"] for row in good):
        console.print("a loop of unknown length counts once: more is sent than is shown")


def _table(title: str, rows: Iterable[Row], columns: Columns) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("mode", "dev/p", "batch", *columns):
        table.add_column(name, justify="left" if name == "mode" else "right", no_wrap=True)
    for row in rows:
        mark = "*" if row["virtual"] and row["seconds"] else ""
        where = f"{row['devices']}/{row['processes']}"
        cells = [str(cell(row)) for cell in columns.values()]
        table.add_row(row["mode"] + mark, where, str(row["batch"]), *cells)
    return table


def _sent_by_kind(rows: Iterable[Row]) -> Columns:
    """A column for every kind of collective that occurs, their sum and the number of calls."""
    kinds = sorted({kind for row in rows for kind in row["collectives"]})
    columns: dict[str, Callable[[Row], Any]] = {kind: _sent_in(kind) for kind in kinds}
    columns["sum"] = lambda row: _megabytes(row["sent_bytes"])
    columns["calls"] = lambda row: sum(kind["count"] for kind in row["collectives"].values())
    return columns


def _sent_in(kind: str) -> Callable[[Row], str]:
    return lambda row: _megabytes(row["collectives"].get(kind, {}).get("sent_bytes", 0))


def _megabytes(sent: int) -> str:
    return f"{sent / 1e6:,.2f}"


def _milliseconds(row: Row, name: str) -> str:
    return f"{1e3 * row['seconds'][name]:,.4g}"


def _flops(count: float) -> str:
    """In units of 1e9."""
    return f"{count / 1e9:,.1f}" if count >= 1e8 else f"{count / 1e9:.2g}"
