"""Plots of a run: curves over the steps, and the recalls of a result as bars."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hmgr_jax.reports.grid import save_png
from hmgr_jax.training.records import Row, read_rows

NOT_LOSSES = {"step", "lr", "grad_norm", "bad_steps", "bad_in_a_row", "bad_total"}
NOT_LOSSES |= {"scale", "shift", "vib"}  # of PCME; vib is not weighted, so 10^5 times larger
STATISTICS = ("memory/", "log_sigma/")
DIRECTION = re.compile(r"(\w+2\w+)/(R@\d+|R-P|mAP(?:@[\dR]+)?)")
"""One direction of one pair of modalities: ``i2t/R@1``, ``image2point/mAP``."""
ACCURACY = re.compile(r"\w+/accuracy")
PALETTE = ("#1f5fa8", "#d1731f", "#3d8c52", "#8b5aa8", "#a83232", "#6b6b6b")
NAMES = {"i": "image", "t": "text", "v": "video"}

Points = dict[str, list[tuple[int, float]]]
"""Values by name, each with its step."""


def curves(workdir: Path, best_step: int | None = None) -> Path:
    """Draw ``metrics.jsonl`` to ``curves.png``: losses, rsum and recalls of every direction.

    ``best_step`` is marked; the default is the step of the highest dev rsum.
    """
    rows = read_rows(workdir / "metrics.jsonl")
    training, dev = _series(rows)
    rsum = dev.get("rsum", [])
    if best_step is None and rsum:
        best_step = max(rsum, key=lambda point: (point[1], -point[0]))[0]
    panels: dict[str, Points] = {"training loss": training}
    if rsum:
        asleep = dev.get("memory/without/rsum")
        panels["dev rsum"] = {"rsum": rsum} | ({"without memory": asleep} if asleep else {})
    percents = {f"dev {_arrow(name)}": points for name, points in _directions(dev).items()}
    for name in filter(ACCURACY.fullmatch, dev):
        percents[f"dev {name}"] = {name: dev[name]}
    figure = _grid(panels | percents, last=max([1, *(row["step"] for row in rows)]))
    for axes, name in zip(figure.axes, panels | percents, strict=True):
        if best_step is not None and name != "training loss":
            _mark(axes, best_step)
        if name in percents:
            axes.set(ylim=(0, 102), ylabel="%")
    return save_png(figure, workdir / "curves.png")


def recalls(workdir: Path, metrics: Mapping[str, float], title: str) -> Path:
    """Draw the recalls and mAPs of one result, in percent, as bars to ``recalls.png``."""
    directions = _directions({name: [(0, value)] for name, value in metrics.items()})
    names = sorted({name for bars in directions.values() for name in bars}, key=_natural)
    figure = Figure(figsize=(max(6.4, 1.5 * len(directions)), 3.8), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / max(len(names), 1)
    for place, name in enumerate(names):
        bars = [(x, d[name][0][1]) for x, d in enumerate(directions.values()) if name in d]
        left = [x + (place - (len(names) - 1) / 2) * width for x, _ in bars]
        color = PALETTE[place % len(PALETTE)]
        drawn = axes.bar(left, [y for _, y in bars], 0.92 * width, label=name, color=color)
        axes.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
    axes.set_xticks(range(len(directions)), [_arrow(name) for name in directions])
    axes.set(title=title, ylabel="%", ylim=(0, 108), yticks=range(0, 101, 20))
    _tidy(axes)
    if names:
        figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    return save_png(figure, workdir / "recalls.png")


def _series(rows: Sequence[Row]) -> tuple[Points, Points]:
    """The training losses and the dev metrics (names without ``dev/``)."""
    training: Points = {}
    dev: Points = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("dev/"):
                dev.setdefault(name.removeprefix("dev/"), []).append((int(row["step"]), value))
            elif name not in NOT_LOSSES and not name.startswith(STATISTICS):
                training.setdefault(name, []).append((int(row["step"]), value))
    return training, dev


def _directions(points: Points) -> dict[str, Points]:
    """The recalls and mAPs of the plain protocol: direction -> measure -> points.

    A direction is followed by its reverse.
    """
    found: dict[str, Points] = {}
    for name in sorted(points, key=_natural):
        match = DIRECTION.fullmatch(name)
        if match:
            found.setdefault(match[1], {})[match[2]] = points[name]
    return {name: found[name] for name in sorted(found, key=_pair)}


def _grid(panels: Mapping[str, Points], last: float) -> Figure:
    """One panel per name, two per row, over the same steps 0 to ``last``."""
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.1 * rows), layout="constrained")
    for place, (title, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        _draw(axes, lines)
        axes.set_title(title, pad=14)
        axes.set(xlabel="step", xlim=(0, 1.03 * last))
    return figure


def _draw(axes: Axes, lines: Points) -> None:
    """Draw the lines of one panel, with a dot per value if there are at most 30."""
    styles = itertools.product(("-", "--", ":"), PALETTE)
    for (name, points), (dashes, color) in zip(lines.items(), itertools.cycle(styles)):
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) <= 30 else ""
        axes.plot(steps, values, marker=marker, ms=3, lw=1.4, ls=dashes, color=color, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _tidy(axes)
    if len(lines) > 1:
        legend = axes.legend(fontsize=8, frameon=False, ncols=1 + len(lines) // 9)
        legend.set_in_layout(False)  # it lies inside, so the panel keeps its size
    if not lines:
        axes.text(0.5, 0.5, "nothing recorded", ha="center", transform=axes.transAxes)


def _mark(axes: Axes, best_step: int) -> None:
    axes.axvline(best_step, color="#999999", lw=1, ls="--", zorder=0)
    axes.annotate(
        f"best: step {best_step}",
        (best_step, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color="#666666",
    )


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y", color="#e4e4e4", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _pair(direction: str) -> tuple[list[str], bool]:
    """Sorting key: the pair of modalities, then the direction."""
    sides = direction.split("2", 1)
    return sorted(sides), sides != sorted(sides)


def _arrow(direction: str) -> str:
    """``i2t`` -> ``image → text``."""
    return " → ".join(NAMES.get(side, side) for side in direction.split("2", 1))


def _natural(name: str) -> list[tuple[str, int]]:
    """Sorting key that puts R@5 before R@10."""
    return [(rest, int(digits or 0)) for rest, digits in re.findall(r"(\D+)(\d*)", name)]
