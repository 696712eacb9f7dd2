"""What is drawn of 3D objects: mAP of every modality by every other, and sheets of neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from hmgr_jax.data.split import Split
from hmgr_jax.distributed import hosts
from hmgr_jax.evaluation.evaluate import More, Scored
from hmgr_jax.metrics.directions import direction
from hmgr_jax.reports.object_sheet import draw_object_sheet
from hmgr_jax.reports.plots import save_png

OF_OBJECTS = {"image", "point", "mesh"}
HEAT_MAP, SHEETS = "map", "objects"
QUERIES = 8
"""Rows of a sheet, of as many classes as there are."""


def heading(config: ConfigDict, protocols: Sequence[str], split: str) -> str:
    """What a heat map shows: system, data, protocol and views."""
    views = f", views: {config.model.views_test}" if "views_test" in config.model else ""
    return f"{config.model.name} on {config.name}, {split}\n{protocols[0]}{views}"


def heat_map(
    folder: Path,
    metrics: Mapping[str, float],
    modalities: Sequence[str],
    title: str,
    suffix: str = "",
) -> Path | None:
    """Draw mAP, queries down and galleries across, as ``map.png``; None where a pair has none.

    Of several protocols the first is drawn. ``suffix`` follows the name, as it does those of
    `sheets`.
    """
    path = folder / f"{HEAT_MAP}{suffix}.png"
    values = np.array([[_map(metrics, direction(a, b)) for b in modalities] for a in modalities])
    if np.isnan(values).any():
        path.unlink(missing_ok=True)  # one of another evaluation would be taken for this one's
        return None
    figure = Figure(figsize=(1.6 + 0.95 * len(modalities),) * 2, layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(values, cmap="Blues", vmin=0, vmax=100)
    for i, j in itertools.product(range(len(modalities)), repeat=2):
        color = "white" if values[i, j] > 60 else "black"
        axes.text(j, i, f"{values[i, j]:.1f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(modalities)), modalities)
    axes.set_yticks(range(len(modalities)), modalities)
    axes.set(xlabel="searched", ylabel="query", title=title)
    axes.title.set_fontsize(10)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="mAP, %")
    return save_png(figure, path)


def _map(metrics: Mapping[str, float], pair: str) -> float:
    """MAP by the first protocol that reports it, whose name may stand before; else NaN."""
    wanted = f"{pair}/mAP"
    found = (v for name, v in metrics.items() if name == wanted or name.endswith(f"/{wanted}"))
    return next(found, float("nan"))


def sheets(folder: Path, split: Split, suffix: str = "") -> More:
    """``more`` of `Evaluator.metrics`: a sheet of neighbours a pair of modalities, no number.

    ``objects-image2mesh.png`` and so on, of splits of 3D objects with labels, by the first process.
    """

    def more(scored: Scored) -> dict[str, float]:
        asked, searched = scored.modalities
        if set(split.sources) <= OF_OBJECTS and split.labels and hosts.first():
            path = folder / f"{SHEETS}-{direction(asked, searched)}{suffix}.png"
            draw_object_sheet(path, split, (asked, searched), scored.scores, _one_a_class(split))
        return {}

    return more


def files(folder: Path, suffix: str = "") -> list[Path]:
    """The pictures of an evaluation that are there."""
    drawn = folder / f"{HEAT_MAP}{suffix}.png"
    beside = sorted(folder.glob(f"{SHEETS}-*2*{suffix}.png"))
    own = [p for p in beside if p.stem[len(SHEETS) + 1 :].removesuffix(suffix).isalnum()]
    return [path for path in (drawn, *own) if path.is_file()]


def show(folder: Path, suffix: str = "") -> None:
    """Print where these pictures lie."""
    for path in files(folder, suffix):
        print(f"{'objects:':12s}{path}")


def _one_a_class(split: Split) -> list[int]:
    """The first object of each class, `QUERIES` of them spread over the classes."""
    kinds = next(iter(split.labels.values())).argmax(axis=1)
    _, first = np.unique(kinds, return_index=True)
    places = np.linspace(0, len(first) - 1, min(QUERIES, len(first))).round().astype(int)
    return first[places].tolist()
