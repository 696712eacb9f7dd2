"""Rows of captioned thumbnails as a PNG: sizes, fonts, margins, wrapping and writing.

    draw_grid(path, [[Thumbnail(picture, below="a red ball")]], side=1.7, below=0.4)

Lengths are in inches, measured from the top left corner of the page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from hmgr_jax.files.workdir import replacing
from hmgr_jax.reports import fonts

DPI = 110
GAP, HEAD = 0.15, 0.4
"""Space between thumbnails, and height of the headings."""
INK, GREY, FRAME, BLANK = "#222222", "#777777", "#bbbbbb", "#f3f3f0"


@dataclass(frozen=True)
class Thumbnail:
    """One picture of a grid with its captions."""

    picture: np.ndarray | None = None
    """uint8 [H, W, 3]; without one, ``words`` stand in its place."""
    words: str = ""
    above: str = ""
    below: str = ""
    frame: str = FRAME
    """Colour of the frame and of the caption above."""
    thick: bool = False
    """Whether the frame is thick."""
    underlined: bool = False
    boxes: Sequence[Sequence[float]] = ()
    """x1, y1, x2, y2 in pixels, drawn as outlines."""


class Page:
    """A white page with text and panels at places given in inches."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")

    def text(self, left: float, top: float, text: str, *, size: float = 9, **options: Any) -> None:
        """Write lines whose top left corner is at (left, top); no character begins a formula."""
        options = {"va": "top", "color": INK} | options
        place = left / self.width, 1 - top / self.height
        drawn = self.figure.text(*place, text, fontsize=size, parse_math=False, **options)
        drawn.set_linespacing(1.3)

    def width_of(self, text: str, *, size: float = 9) -> float:
        """Width of a line of text."""
        renderer = FigureCanvasAgg(self.figure).get_renderer()
        font = FontProperties(size=size, family=fonts.families(text))
        with fonts.quiet():
            return renderer.get_text_width_height_descent(text, font, ismath=False)[0] / DPI

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without ticks."""
        bottom = self.height - top - height
        place = left / self.width, bottom / self.height, width / self.width, height / self.height
        axes = self.figure.add_axes(place)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(FRAME)
        return axes

    def thumbnail(self, left: float, top: float, side: float, shown: Thumbnail) -> None:
        """Draw a picture, or its words, in a square with captions above and below."""
        axes = self.panel(left, top, side, side)
        axes.spines[:].set_color(shown.frame)
        axes.spines[:].set_linewidth(2.2 if shown.thick else 0.8)
        small = 7 if side < 2 else 9
        if shown.picture is None:
            axes.set_facecolor(BLANK)
            words = wrap(shown.words, round(side * 12), 8)
            options = {"ha": "center", "va": "center", "color": INK}
            self.text(left + side / 2, top + side / 2, words, size=small + 1.5, **options)
        else:
            picture, (across, down) = _square(shown.picture)
            axes.imshow(picture, interpolation="antialiased" if side > 3 else "lanczos")
            for x1, y1, x2, y2 in shown.boxes:
                corner = x1 + across - 0.5, y1 + down - 0.5
                outline = Rectangle(corner, x2 - x1, y2 - y1, fill=False, color="#444444", lw=0.9)
                axes.add_patch(outline)
        colour = shown.frame if shown.thick else GREY
        self.text(left, top - 0.05, shown.above, size=small, va="bottom", color=colour)
        self.text(left, top + side + 0.07, shown.below, size=small)
        if shown.underlined:
            line = axes.plot([0.25, 0.75], [-0.055, -0.055], color=shown.frame, lw=2.2)[0]
            line.set(transform=axes.transAxes, clip_on=False)

    def save(self, path: Path) -> Path:
        """Write the page; see `save_png`."""
        return save_png(self.figure, path)


def draw_grid(
    path: Path,
    rows: Sequence[Sequence[Thumbnail]],
    *,
    side: float,
    columns: int = 0,
    above: float = 0.0,
    below: float = 0.0,
    headings: Mapping[int, str] | None = None,
    apart: float = 0.0,
    notes: Sequence[str] = (),
    notes_width: float = 0.0,
    group: int = 0,
) -> Path:
    """Write a PNG with one row of thumbnails after the other.

    Args:
        path: of the PNG.
        rows: the thumbnails of each row, from left to right.
        side: of a thumbnail.
        columns: room for at least this many thumbnails in a row.
        above: room for the captions above.
        below: room for the captions below.
        headings: {column: text} at the top of the page.
        apart: extra space after the first column, which holds queries.
        notes: a text to the right of each row.
        notes_width: room for these texts.
        group: rows that belong together, with a larger space after each group.
    """
    head = HEAD if headings else 0.0
    columns = max(columns, *(len(row) for row in rows))
    lefts = [GAP + k * (side + GAP) + (apart if k else 0.0) for k in range(columns)]
    tops = [
        GAP + head + k * (above + side + below + GAP) + (3 * GAP * (k // group) if group else 0.0)
        for k in range(len(rows))
    ]
    width = lefts[-1] + side + GAP + notes_width
    page = Page(width, tops[-1] + above + side + below + GAP)
    for column, text in (headings or {}).items():
        page.text(lefts[column], GAP + head / 2, text, size=10, va="center")
    for number, (row, top) in enumerate(zip(rows, tops, strict=True)):
        for left, shown in zip(lefts, row, strict=False):
            page.thumbnail(left, top + above, side, shown)
        if notes:
            page.text(lefts[-1] + side + 2 * GAP, top + above, notes[number])
    return page.save(path)


def wrap(text: str, letters: int, lines: int | None = None) -> str:
    """Text in lines of at most ``letters`` `columns`, the last one cut after ``lines`` lines."""
    letters = max(1, letters * len(text) // max(1, fonts.columns(text)))
    return "\n".join(textwrap.wrap(text, letters, max_lines=lines, placeholder=" …"))


def bullets(texts: Sequence[str], letters: int) -> str:
    """One wrapped paragraph per text, each with a bullet."""
    wrapper = textwrap.TextWrapper(letters, initial_indent="• ", subsequent_indent="   ")
    return "\n".join(map(wrapper.fill, texts))


def shorten(name: str, letters: int) -> str:
    """A name of at most ``letters`` characters, cut with an ellipsis."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def save_png(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically, so that a reader never sees half of a file; see `set_fonts`."""
    fonts.set_fonts(figure)
    with replacing(path) as file, fonts.quiet():
        FigureCanvasAgg(figure).print_png(file)
    return path


def _square(picture: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The picture in the middle of a white square, and its (left, top) there."""
    tall, wide = picture.shape[:2]
    side = max(tall, wide)
    left, top = (side - wide) // 2, (side - tall) // 2
    square = np.full((side, side, 3), 255, np.uint8)
    square[top : top + tall, left : left + wide] = picture
    return square, (left, top)
