"""Reports of 3D objects: mAP of every pair of modalities, and sheets of nearest neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from hmgr_jax.data.split import Split
from hmgr_jax.distributed import hosts
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.evaluate import More, Scored
from hmgr_jax.metrics.directions import direction
from hmgr_jax.reports.grid import INK, Thumbnail, draw_grid, save_png, shorten
from hmgr_jax.reports.object_pictures import pictures_of
from hmgr_jax.training.config import data_name

OF_OBJECTS = {"image", "point", "mesh"}
HEAT_MAP, SHEETS = "map", "objects"
QUERIES = 8
"""Rows of a sheet: queries of this many classes at most."""
RIGHT, WRONG = "#2a9d4a", "#d1342f"
"""Frames of items of the query's class and of others."""
PIXELS, LETTERS = 128, 20
"""Pixels per side of a drawn object, and letters of its name."""


def heading(config: ConfigDict, protocols: Sequence[str], split: str) -> str:
    """Title of a heat map: system, data, protocol and views."""
    views = f", views: {config.model.views_test}" if "views_test" in config.model else ""
    return f"{config.model.name} on {data_name(config)}, {split}\n{protocols[0]}{views}"


def heat_map(
    folder: Path,
    metrics: Mapping[str, float],
    modalities: Sequence[str],
    title: str,
    suffix: str = "",
) -> Path | None:
    """Draw mAP by query (rows) and gallery (columns) as ``map.png``; None if a pair has no mAP.

    The first protocol that reports mAP is drawn. ``suffix`` follows the file name, as in `sheets`.
    """
    path = folder / f"{HEAT_MAP}{suffix}.png"
    values = np.array([[_map(metrics, direction(a, b)) for b in modalities] for a in modalities])
    if np.isnan(values).any():
        path.unlink(missing_ok=True)  # a file of another evaluation would be misleading
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
    """MAP of a direction by the first protocol that reports it, else NaN."""
    wanted = f"{pair}/mAP"
    found = (v for name, v in metrics.items() if name == wanted or name.endswith(f"/{wanted}"))
    return next(found, float("nan"))


def sheets(folder: Path, split: Split, suffix: str = "") -> More:
    """``more`` of `Evaluator.metrics`: draws a sheet of neighbours per pair, adds no metric.

    The first process writes ``objects-image2mesh.png`` and so on for splits of labelled 3D objects.
    """

    def more(scored: Scored) -> dict[str, float]:
        asked, searched = scored.modalities
        if set(split.sources) <= OF_OBJECTS and split.labels and hosts.is_first():
            path = folder / f"{SHEETS}-{direction(asked, searched)}{suffix}.png"
            draw_object_sheet(path, split, (asked, searched), scored.scores, _one_a_class(split))
        return {}

    return more


def _one_a_class(split: Split) -> list[int]:
    """The first object of each class, for at most `QUERIES` evenly chosen classes."""
    kinds = next(iter(split.labels.values())).argmax(axis=1)
    _, first = np.unique(kinds, return_index=True)
    places = np.linspace(0, len(first) - 1, min(QUERIES, len(first))).round().astype(int)
    return first[places].tolist()


def draw_object_sheet(
    path: Path,
    split: Split,
    modalities: tuple[str, str],
    scores: np.ndarray,
    queries: Sequence[int],
    *,
    columns: int = 8,
) -> None:
    """Write a PNG with one row per query and its nearest items by ``scores`` from left to right.

    Frames are green for items that share a class with the query and red for others. The same object
    in the other modality is underlined. Within one modality the query itself is left out.

    Args:
        path: of the PNG.
        split: the objects, with labels.
        modalities: of the queries and of the gallery.
        scores: float [n, n], queries by gallery, higher is nearer.
        queries: the items to show.
        columns: neighbours per query.

    Raises:
        UserError: a modality or its labels are missing, or scores do not fit or are not finite.
    """
    asked, searched = modalities
    _check(split, modalities, scores)
    chosen = np.asarray(list(queries), np.int64)
    of_query = scores[chosen].astype(np.float64)
    if asked == searched:
        of_query[np.arange(len(chosen)), chosen] = -np.inf
    count = min(columns, scores.shape[1] - (asked == searched))
    nearest = np.argsort(-of_query, axis=1, kind="stable")[:, :count]
    shown = pictures_of(asked, split.sources[asked], chosen, PIXELS)
    found = iter(pictures_of(searched, split.sources[searched], nearest.reshape(-1), PIXELS))
    rows = []
    for query, picture, items in zip(chosen.tolist(), shown, nearest.tolist(), strict=True):
        row = [Thumbnail(picture, above=_name(split, asked, query), frame=INK, thick=True)]
        for item in items:
            alike = (split.labels[asked][query] & split.labels[searched][item]).any()
            same = split.ids[searched][item] == split.ids[asked][query]
            frame, name = RIGHT if alike else WRONG, _name(split, searched, item)
            row.append(Thumbnail(next(found), "", name, "", frame, thick=True, underlined=same))
        rows.append(row)
    headings = {0: f"query: {asked}", 1: f"{searched}, nearest first"}
    draw_grid(path, rows, side=1.25, above=0.2, headings=headings, apart=0.3)


def _check(split: Split, modalities: tuple[str, str], scores: np.ndarray) -> None:
    for modality in modalities:
        if modality not in split.sources or not len(split.labels.get(modality, ())):
            known = ", ".join(m for m in split.sources if len(split.labels.get(m, ())))
            raise UserError(
                f"{split.name} has no {modality} with labels to draw: choose from "
                f"{known or 'none'}."
            )
    wanted = tuple(len(split.sources[m]) for m in modalities)
    if scores.shape != wanted:
        raise UserError(
            f"Scores must have shape {list(wanted)}, got {list(scores.shape)}: give those of "
            f"{modalities[0]} by {modalities[1]} of {split.name}."
        )
    if not np.isfinite(scores).all():
        raise UserError(f"Scores of {split.name} hold NaN or infinity, so no item is nearest.")


def _name(split: Split, modality: str, item: int) -> str:
    return shorten(str(split.ids[modality][item]).rpartition("/")[2], LETTERS)


def files(folder: Path, suffix: str = "") -> list[Path]:
    """The existing pictures of an evaluation."""
    drawn = folder / f"{HEAT_MAP}{suffix}.png"
    beside = sorted(folder.glob(f"{SHEETS}-*2*{suffix}.png"))
    own = [p for p in beside if p.stem[len(SHEETS) + 1 :].removesuffix(suffix).isalnum()]
    return [path for path in (drawn, *own) if path.is_file()]


def show(folder: Path, suffix: str = "") -> None:
    """Print the paths of these pictures."""
    for path in files(folder, suffix):
        print(f"{'objects:':12s}{path}")
