"""Reports of uncertainties: a plot, a table, and an HTML sheet of pictures.

They are written for systems whose `Model.uncertainty` is not None, at the end of a run and by
``--mode=evaluate``.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from hmgr_jax.data.pictures.pixels import PixelSource
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
from hmgr_jax.terminal import escape_controls

NAME = "uncertainty"
PLOT, TABLE, SHEET = ".png", ".csv", ".html"
"""Endings of the files of a report."""
PREFIX = "uncertainty/"
"""Prefix of Spearman's rho among the metrics of a run."""
Row = dict[str, float | str]
EACH = 12
"""Most certain items, and as many least certain items."""
SIDE = 160
"""Pixels of the longer side of a picture."""
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;
color:#222;background:#fff}h1{font-size:1.35rem}h2{font-size:1.1rem;margin-top:2rem}
ol{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:1rem;padding:0;
list-style:none}li{border:1px solid #ddd;border-radius:6px;padding:.6rem;overflow-wrap:anywhere}
img{display:block;max-width:100%;height:auto;margin-bottom:.4rem;border-radius:3px}
p{margin:.2rem 0}.n{color:#666;font-size:.85em}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}li{border-color:#444}
.n{color:#aaa}}
"""


class Shown(NamedTuple):
    """The uncertainties of one side."""

    modality: str
    uncertainty: np.ndarray
    """float [n]."""
    ranks: np.ndarray
    """int [n], 0-based, of the best correct answer."""


def reporter(
    evaluator: Evaluator, folder: Path, split: Split, *, title: str, name: str = NAME
) -> Callable[[Scored], dict[str, float]]:
    """``more`` of `Evaluator.metrics`: writes a `report`, adds its rhos (``uncertainty/i2t/rank``).

    Systems without uncertainties have no report; only the first process writes. A split that
    cannot be reported gives a warning and keeps its other metrics.
    """

    def more(scored: Scored) -> dict[str, float]:
        each = {m: evaluator.uncertainty(codes) for m, codes in scored.codes.items()}
        known = {m: values for m, values in each.items() if values is not None}
        if not known or not hosts.is_first():
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
    """Lines that explain the rhos among ``metrics``."""
    if not any(name.startswith(PREFIX) for name in metrics):
        return []
    return [
        f"{PREFIX}: Spearman's rho (-1 to 1) of the uncertainty of a query with the rank of its "
        "best right answer, and of a caption's with its length"
    ]


def files(folder: Path, name: str = NAME) -> dict[str, Path]:
    """{kind: path} of the existing files of a report."""
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
        folder: of the files.
        split: the scored items.
        uncertainty: {modality: float [n]}, of one modality or both; larger is less certain.
        scores: float [n_a, n_b] of ``modalities``.
        title: of the plot and the sheet.
        modalities: the two sides of the scores.
        name: of the files, ``uncertainty.png``, ``.csv`` and ``.html``.

    Returns:
        the table (one row per bin and direction), and Spearman's rho of uncertainty and rank and of
        uncertainty and caption length, as ``i2t/rank``, ``t2i/rank``, ``t2i/length``.

    Raises:
        UserError: a query has no correct answer, or a score or an uncertainty is not finite.
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
    """Spearman's rho of a side's uncertainties with ranks, and with lengths if it has them."""
    lengths = split.sources[side.modality].lengths
    more = {} if lengths is None else {"length": lengths}
    return rank_correlations(side.uncertainty, side.ranks, **more)


def as_csv(table: Sequence[Row]) -> str:
    """A table as CSV, with numbers to six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def _plot(path: Path, bins: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> None:
    """Plot R@K of every bin, with one panel per direction."""
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


def sheet(split: Split, sides: Sequence[Shown], title: str, each: int = EACH) -> str:
    """HTML with the ``each`` most and least certain items of each side, without external files.

    An image is shown with one of its captions, and a caption with its image, if the split has
    pictures and not features.
    """
    parts = [f"<h1>{_escaped(title)}</h1>"]
    for side in sides:
        order = np.argsort(side.uncertainty, kind="stable").tolist()
        ends = {"Most certain": order[:each], "Least certain": order[::-1][:each]}
        for what, items in ends.items():
            parts.append(f"<h2>{what}: {_escaped(side.modality)}</h2><ol>")
            parts += [_item(split, side, item) for item in items]
            parts.append("</ol>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_escaped(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _item(split: Split, side: Shown, item: int) -> str:
    rows = split.rows[side.modality]
    row = int(np.flatnonzero(rows == item)[0])
    image, caption = int(split.rows[split.visual][row]), int(split.rows["text"][row])
    captions = getattr(split.sources["text"], "captions", ())
    sentence = captions[caption] if captions else split.ids["text"][caption]
    name = split.ids[side.modality][item]
    picture = _picture(split, image, f"picture of {name}")
    return (
        f"<li>{picture}<p>{_escaped(sentence)}</p>"
        f'<p class="n">{_escaped(name)}<br>uncertainty {side.uncertainty[item]:.4g}, '
        f"right answer at rank {int(side.ranks[item]) + 1}</p></li>"
    )


def _picture(split: Split, image: int, alt: str) -> str:
    """An ``img`` with embedded contents; empty if the split has features."""
    source = split.sources[split.visual]
    if not isinstance(source, PixelSource):
        return ""
    picture = source.pictures.load(image).copy()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    width, height = picture.size
    return (
        f'<img width="{width}" height="{height}" alt="{_escaped(alt)}" '
        f'src="data:image/jpeg;base64,{data}">'
    )


def _escaped(text: str) -> str:
    return html.escape(escape_controls(text))
