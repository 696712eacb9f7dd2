"""A contact sheet: 3D objects and what is found nearest to them in another modality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError
from hmgr_jax.reports.object_pictures import pictures_of

RIGHT, WRONG, ASKED = "#2a9d4a", "#d1342f", "#444444"
"""Frames: of the query's class, of another, and of the query."""
SIDE, GAP, TITLE, APART = 1.25, 0.12, 0.24, 0.3
"""Inches: side of a picture, space around it, room for its title, and beside the query."""
HEAD = 0.35
DPI = 110
PIXELS = 128
LETTERS = 20


def draw_object_sheet(
    path: Path,
    split: Split,
    modalities: tuple[str, str],
    scores: np.ndarray,
    queries: Sequence[int],
    *,
    columns: int = 8,
) -> None:
    """Write a PNG: a row a query, its nearest items by ``scores`` from left to right.

    Frames are green where an item shares a class with the query and red where not; the same object
    seen in the other modality is underlined. Of one modality the query itself is left out.

    Args:
        path: of the PNG.
        split: the objects, with labels.
        modalities: of the queries and of what is searched.
        scores: float [n, n], queries by gallery, higher is nearer.
        queries: items that are shown.
        columns: how many neighbours are shown of each.

    Raises:
        UserError: a modality is not there, there are no labels, or scores do not fit or are NaN.
    """
    asked, searched = modalities
    _demand(split, modalities, scores)
    chosen = np.asarray(list(queries), np.int64)
    of_query = scores[chosen].astype(np.float64)
    if asked == searched:
        of_query[np.arange(len(chosen)), chosen] = -np.inf
    count = min(columns, scores.shape[1] - (asked == searched))
    nearest = np.argsort(-of_query, axis=1, kind="stable")[:, :count]
    shown = pictures_of(asked, split.sources[asked], chosen, PIXELS)
    found = pictures_of(searched, split.sources[searched], nearest.reshape(-1), PIXELS)
    figure, axes = _figure(len(chosen), count, modalities)
    for row, query in enumerate(chosen.tolist()):
        _draw(axes[row][0], shown[row], _name(split, asked, query), ASKED)
        for k, item in enumerate(nearest[row].tolist()):
            alike = (split.labels[asked][query] & split.labels[searched][item]).any()
            axis, name = axes[row][k + 1], _name(split, searched, item)
            _draw(axis, found[row * count + k], name, RIGHT if alike else WRONG)
            if split.ids[searched][item] == split.ids[asked][query]:
                _underline(axis)
    figure.savefig(path, format="png")


def _demand(split: Split, modalities: tuple[str, str], scores: np.ndarray) -> None:
    for modality in modalities:
        if modality not in split.sources or not len(split.labels.get(modality, ())):
            known = ", ".join(m for m in split.sources if len(split.labels.get(m, ())))
            raise UserError(
                f"{split.name} has no {modality} with labels to draw: choose of {known or 'none'}."
            )
    wanted = tuple(len(split.sources[m]) for m in modalities)
    if scores.shape != wanted:
        raise UserError(
            f"Scores are {list(scores.shape)} where {list(wanted)} were expected: give those of "
            f"{modalities[0]} by {modalities[1]} of {split.name}."
        )
    if not np.isfinite(scores).all():
        raise UserError(f"Scores of {split.name} hold NaN or infinity: nothing is nearest then.")


def _name(split: Split, modality: str, item: int) -> str:
    name = str(split.ids[modality][item]).rpartition("/")[2]
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"


def _figure(
    rows: int, columns: int, modalities: tuple[str, str]
) -> tuple[Figure, list[list[Axes]]]:
    """An empty sheet, and its axes by row and column, the query's first."""
    pitch, rise = SIDE + GAP, SIDE + TITLE + GAP
    width = GAP + (columns + 1) * pitch + APART
    height = HEAD + GAP + rows * rise
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    lefts = [GAP, *(GAP + APART + k * pitch for k in range(1, columns + 1))]
    top = 1 - 0.55 * HEAD / height
    for left, text in (
        (lefts[0], f"query: {modalities[0]}"),
        (lefts[1], f"{modalities[1]}, nearest first"),
    ):
        figure.text(left / width, top, text, fontsize=10, va="center", color="#222222")
    axes = []
    for row in range(rows):
        bottom = height - HEAD - (row + 1) * rise + GAP
        places = [(left / width, bottom / height, SIDE / width, SIDE / height) for left in lefts]
        axes.append([figure.add_axes(place) for place in places])
    return figure, axes


def _draw(axis: Axes, picture: np.ndarray, name: str, colour: str) -> None:
    axis.imshow(picture, interpolation="lanczos")
    axis.set_title(name, fontsize=6.5, color=colour, pad=3)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2.2)


def _underline(axis: Axes) -> None:
    line = axis.plot([0.25, 0.75], [-0.055, -0.055], color=RIGHT, linewidth=2.2)[0]
    line.set_transform(axis.transAxes)
    line.set_clip_on(False)
