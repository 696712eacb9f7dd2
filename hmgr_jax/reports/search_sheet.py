"""A contact sheet of a search: what was asked on the left, what was found beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hmgr_jax.reports.plots import save_png

SIDE, GAP, NOTES, HEAD = 1.7, 0.16, 0.86, 0.4
"""Inches: side of a picture, space around it, room for words below, and for the heading."""
LETTERS, LINES = 34, 4
"""Of the words below a picture."""
ASKED_LETTERS = 20
DPI = 110
INK, PALE, FRAME = "#222222", "#777777", "#cccccc"
BLANK = "#f3f3f0"


class Tile(NamedTuple):
    """An item as it is shown."""

    picture: np.ndarray | None
    """uint8 [H, W, 3]; None shows the words in its place."""
    words: str
    note: str = ""
    """A name, a score."""


def draw_sheet(
    path: Path, title: str, rows: Sequence[tuple[Tile, Sequence[Tile]]], *, columns: int = 10
) -> None:
    """Write a PNG: a row a query, what was found from left to right, best first.

    Args:
        path: of the PNG.
        title: above all.
        rows: a query and what was found, best first.
        columns: at most so many are shown of each query.
    """
    wide = min(columns, max(len(found) for _, found in rows))
    pitch, rise = SIDE + GAP, SIDE + NOTES
    width, height = 2 * GAP + (wide + 1) * pitch, HEAD + GAP + len(rows) * rise
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(GAP / width, 1 - 0.6 * HEAD / height, title, fontsize=10, va="center", color=INK)
    for row, (asked, found) in enumerate(rows):
        bottom = height - HEAD - row * rise - SIDE
        for column, tile in enumerate((asked, *found[:wide])):
            left = GAP + column * pitch + (GAP if column else 0)
            where = (left / width, bottom / height, SIDE / width, SIDE / height)
            _draw(figure.add_axes(where), tile, asked=not column)
    save_png(figure, path)


def _draw(axes: Axes, tile: Tile, *, asked: bool) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(INK if asked else FRAME)
    if tile.picture is None:
        axes.set_facecolor(BLANK if not asked else "white")
        said = _wrapped(tile.words, ASKED_LETTERS, 8)
        axes.text(0.5, 0.5, said, ha="center", va="center", fontsize=8.5, color=INK)
        below = tile.note
    else:
        axes.imshow(_square(tile.picture), interpolation="lanczos")
        below = "\n".join(filter(None, (tile.note, _wrapped(tile.words, LETTERS, LINES))))
    axes.text(
        0,
        -0.04,
        below,
        transform=axes.transAxes,
        va="top",
        fontsize=6.8,
        linespacing=1.3,
        color=INK if tile.picture is not None else PALE,
    )


def _wrapped(text: str, letters: int, lines: int) -> str:
    # A dollar would begin a formula.
    found = textwrap.wrap(text, letters, max_lines=lines, placeholder=" …")
    return "\n".join(found).replace("$", r"\$")


def _square(picture: np.ndarray) -> np.ndarray:
    """The whole picture in the middle of a square, white around it."""
    tall, wide = picture.shape[:2]
    side = max(tall, wide)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - tall) // 2, (side - wide) // 2
    square[top : top + tall, left : left + wide] = picture
    return square
