"""Rows of the scaling benchmark as a picture: speed, efficiency, work and bytes over devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from benchmarks.scaling.grid import Row

PALETTE = ("#1f5fa8", "#d1731f", "#3d8c52", "#8b5aa8")
KINDS = ("all-reduce", "all-gather", "reduce-scatter")
STYLES = {"weak": "-", "strong": "--"}
"""Line styles; colours stand for numbers of processes or kinds of collectives."""


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Draw the measured rows; without times, work_efficiency replaces efficiency."""
    good = [row for row in rows if "error" not in row]
    figure = Figure(figsize=(10.4, 7.2), layout="constrained")
    panels = list(figure.subplots(2, 2).flat)
    timed = [row for row in good if row["seconds"]]
    if timed:
        _throughput(panels[0], timed)
    else:
        _lines(panels[0], good, lambda row: row["memory_bytes"]["total"] / 1e6)
        panels[0].set(title="memory of one device's program", ylabel="MB", ylim=(0, None))
    _shares(panels[1], good, timed)
    _lines(panels[2], good, lambda row: row["matmul_flops"] / 1e9)
    panels[2].set(title="matrix products of one device", ylabel="GFLOP a step", yscale="log")
    _collectives(panels[3], good)
    for axes in panels:
        _finish(axes, sorted({row["devices"] for row in good}))
    figure.suptitle(_title(good), fontsize=11)
    figure.savefig(path, dpi=110)
    return path


def _title(rows: Sequence[Row]) -> str:
    if not rows:
        return "nothing could be measured"
    row = rows[0]
    size = f"{row['model']}, dim {row['dim']}, {row['dtype']}, {row['platform']}"
    if not row["seconds"]:
        return f"{size}, compiled only"
    return size + (" (virtual devices: times say nothing about scaling)" if row["virtual"] else "")


def _throughput(axes: Axes, rows: Sequence[Row]) -> None:
    _lines(axes, rows, lambda row: row["items_per_second"])
    first = min(rows, key=lambda row: row["devices"])
    devices = sorted({row["devices"] for row in rows})
    ideal = [first["items_per_second"] * n / first["devices"] for n in devices]
    axes.plot(devices, ideal, color="#999999", lw=1, ls=":", label="ideal")
    axes.set(title="throughput", ylabel="items per second", yscale="log")


def _shares(axes: Axes, rows: Sequence[Row], timed: Sequence[Row]) -> None:
    axes.set(title="efficiency" if timed else "FLOPs per item: first row / this row")
    _lines(axes, timed or rows, lambda row: row["efficiency" if timed else "work_efficiency"])
    axes.axhline(1, color="#999999", lw=1, ls=":")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(0, max(1.08, 1.08 * axes.dataLim.y1))


def _collectives(axes: Axes, rows: Sequence[Row]) -> None:
    """Bytes by kind; runs of several processes send the same bytes and are left out."""
    axes.set(title="sent by one device (ring algorithms)", ylabel="MB a step")
    alone = [row for row in rows if row["processes"] == 1] or list(rows)
    widths = (1.4, 4, 1.4)  # gathers and their gradients have equal bytes: two lines in one place
    for color, kind, width in zip(PALETTE, KINDS, widths, strict=False):
        for mode, own in _series(alone, "mode"):
            sent = [row["collectives"].get(kind, {}).get("sent_bytes", 0) / 1e6 for row in own]
            devices = [row["devices"] for row in own]
            label = f"{kind}, {mode}"
            axes.plot(devices, sent, STYLES[mode], color=color, label=label, lw=width)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(bottom=0)


def _lines(axes: Axes, rows: Sequence[Row], value: Callable[[Row], float]) -> None:
    """One line per mode (style) and number of processes (colour)."""
    processes = sorted({row["processes"] for row in rows})
    for mode, some in _series(rows, "mode"):
        for count, own in _series(some, "processes"):
            label = mode if processes == [1] else f"{mode}, {_counted(count)}"
            color = PALETTE[processes.index(count) % len(PALETTE)]
            values = [value(row) for row in own]
            devices = [row["devices"] for row in own]
            axes.plot(devices, values, STYLES[mode], marker="o", ms=3, color=color, label=label)


def _counted(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


def _series(rows: Sequence[Row], key: str) -> list[tuple]:
    ordered = sorted(rows, key=lambda row: (row[key], row["devices"]))
    return [(name, list(own)) for name, own in groupby(ordered, key=lambda row: row[key])]


def _finish(axes: Axes, devices: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(devices, [str(n) for n in devices])
    axes.xaxis.set_minor_locator(NullLocator())
    if axes.get_yscale() != "linear":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.4g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.set_xlabel("devices")
    axes.grid(axis="y", color="#e4e4e4", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
