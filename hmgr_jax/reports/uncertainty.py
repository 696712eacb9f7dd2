"""What a run's uncertainties are worth, for people: a plot, a table, and a sheet of pictures.

Of systems whose `Model.uncertainty` is not None, at the end of a run and by ``--mode=evaluate``.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hmgr_jax.data.split import Split
from hmgr_jax.distributed import hosts
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.evaluate import Evaluator, Scored
from hmgr_jax.files.workdir import write_text_atomic
from hmgr_jax.metrics.directions import KS, direction
from hmgr_jax.metrics.ranks import ranks
from hmgr_jax.metrics.uncertainty import by_bin, rank_correlations
from hmgr_jax.reports.grid import save_png
from hmgr_jax.reports.plots import PALETTE
from hmgr_jax.reports.uncertainty_sheet import Shown, sheet

NAME = "uncertainty"
PLOT, TABLE, SHEET = ".png", ".csv", ".html"
"""What follows the name of a report."""
PREFIX = "uncertainty/"
"""Of Spearman's rhos among the metrics of a run."""
Row = dict[str, float | str]


def reporter(
    evaluator: Evaluator, folder: Path, split: Split, *, title: str, name: str = NAME
) -> Callable[[Scored], dict[str, float]]:
    """``more`` of `Evaluator.metrics`: a `report` and its rhos, as ``uncertainty/i2t/rank``.

    Nothing is reported for a system without uncertainties, and by other processes than the first.
    A split that cannot be reported is warned of: its metrics are worth keeping.
    """

    def more(scored: Scored) -> dict[str, float]:
        each = {m: evaluator.uncertainty(codes) for m, codes in scored.codes.items()}
        known = {m: values for m, values in each.items() if values is not None}
        if not known or not hosts.first():
            return {}
        pairs, scores, _ = scored
        try:
            _, rho = report(folder, split, known, scores, title=title, modalities=pairs, name=name)
        except UserError as error:
            warnings.warn(f"no report of uncertainties: {error}", RuntimeWarning, stacklevel=3)
            return {}
        return {f"{PREFIX}{what}": value for what, value in rho.items()}

    return more


def describe(metrics: Mapping[str, float]) -> list[str]:
    """Lines about the rhos among ``metrics``, printed with every number; none without any."""
    if not any(name.startswith(PREFIX) for name in metrics):
        return []
    return [
        f"{PREFIX}: Spearman's rho (-1 to 1) of the uncertainty of a query with the rank of its "
        "best right answer, and of a caption's with its length"
    ]


def files(folder: Path, name: str = NAME) -> dict[str, Path]:
    """{what it is: file} of a report, without those that are not there."""
    named = {"bins": PLOT, "table": TABLE, "sheet": SHEET}
    found = {what: folder / f"{name}{ending}" for what, ending in named.items()}
    return {what: path for what, path in found.items() if path.is_file()}


def report(
    folder: Path,
    split: Split,
    uncertainty: Mapping[str, np.ndarray],
    scores: np.ndarray,
    *,
    title: str,
    modalities: tuple[str, str] = ("image", "text"),
    name: str = NAME,
) -> tuple[list[Row], dict[str, float]]:
    """Write a plot, a table and a sheet.

    Args:
        folder: where to.
        split: whose items were scored.
        uncertainty: {modality: float [n]}, of one modality or both; larger is less certain.
        scores: float [n_a, n_b] of ``modalities``.
        title: what is shown, for people.
        modalities: the two sides of the scores.
        name: of the files, ``uncertainty.png``, ``.csv`` and ``.html``.

    Returns:
        the table (a row a bin and direction) and Spearman's rho of uncertainty and rank, and of
        uncertainty and the length of a caption, as ``i2t/rank``, ``t2i/rank``, ``t2i/length``.

    Raises:
        UserError: a query has no right answer, or a score or an uncertainty is not finite.
    """
    a, b = modalities
    groups = split.groups[a], split.groups[b]
    of_side = {a: ranks(scores, *groups), b: ranks(scores.T, *groups[::-1])}
    shown = [Shown(m, uncertainty[m], of_side[m]) for m in modalities if m in uncertainty]
    sides = {direction(s.modality, b if s.modality == a else a): s for s in shown}
    bins = {where: by_bin(s.uncertainty, s.ranks, ks=KS) for where, s in sides.items()}
    table: list[Row] = [{"direction": where, **row} for where, rows in bins.items() for row in rows]
    _plot(folder / f"{name}{PLOT}", bins, title)
    write_text_atomic(folder / f"{name}{TABLE}", as_csv(table))
    write_text_atomic(folder / f"{name}{SHEET}", sheet(split, shown, title))
    rho = {where: _rho(split, side) for where, side in sides.items()}
    return table, {f"{where}/{what}": v for where, of in rho.items() for what, v in of.items()}


def _rho(split: Split, side: Shown) -> dict[str, float]:
    """Spearman's rho of a side's uncertainties with ranks, and with lengths where it has them."""
    lengths = split.sources[side.modality].lengths
    more = {} if lengths is None else {"length": lengths}
    return rank_correlations(side.uncertainty, side.ranks, **more)


def as_csv(table: Sequence[Row]) -> str:
    """A table as CSV, numbers to six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def _plot(path: Path, bins: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> None:
    """R@K of every bin, a panel a direction."""
    figure = Figure(figsize=(max(5.2, 4.8 * len(bins)), 3.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for place, (name, rows) in enumerate(bins.items(), start=1):
        axes = figure.add_subplot(1, len(bins), place)
        numbers = [row["bin"] for row in rows]
        for k, color in zip(KS, PALETTE, strict=False):
            values = [row[f"R@{k}"] for row in rows]
            axes.plot(numbers, values, marker="o", ms=4, lw=1.4, color=color, label=f"R@{k}")
        axes.set(ylim=(0, 102), xlabel="bin, from certain to uncertain", ylabel="%")
        axes.set_title(f"{name}, {int(sum(row['queries'] for row in rows)):,} queries", fontsize=10)
        axes.set_xticks(numbers)
        axes.grid(axis="y", color="#e4e4e4", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, ncols=len(KS))
    save_png(figure, path)
