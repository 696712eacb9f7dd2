"""One page per matching step: the regions that words attend to, and the words of the regions.

Sizes are in inches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hmgr_jax.reports.explanation import Attention, PairExplanation
from hmgr_jax.reports.faded_picture import FadedPicture
from hmgr_jax.reports.grid import Page, shorten, wrap

COLUMNS, PANEL, GAP, MARGIN = 6, 2.05, 0.15, 0.3
LINE, HEAD, SECTION, TITLE, BARS = 0.24, 0.3, 0.26, 0.3, 0.95
BREAK = 0.14
TALLEST, FLATTEST = 1.5, 0.5
"""Bounds of a panel's height over its width; other pictures leave room at their sides."""
STRONGEST, WORDS = 12, 4
"""Regions on the page, and words of each."""
LETTERS, LONGEST = 118, 20
"""Letters of a line of the sentence, and of a word."""
BAR = "#f9c784"
SECTIONS = {
    "t2i": "Words attend to regions. Above a picture: the word and its cosine with the attended "
    "regions; at the frame: the highest weight; full colour from weight {full:.2f} on.",
    "i2t": "Regions attend to words. Above a picture: the region and its cosine with the attended "
    "words (highest first); below: the words with the highest weights.",
}


def draw_step(
    picture: np.ndarray | None, found: PairExplanation, step: int, sentence: str, image: str
) -> Figure:
    """The page of matching step ``step`` (from 0).

    Args:
        picture: uint8 [H, W, 3]; None draws the boxes on a blank canvas.
        found: the explanation.
        step: number of the step.
        sentence: heading of the page.
        image: name of the picture, in the heading.
    """
    faded = FadedPicture(picture, found.boxes)
    tall, wide = faded.size
    panel = PANEL * min(max(tall / wide, FLATTEST), TALLEST)
    lines = wrap(sentence, LETTERS).splitlines() or [sentence]
    shown = {d: _shown(d, a.cosines[step]) for d, a in found.attention.items()}
    page = Page(COLUMNS * (PANEL + GAP) - GAP + 2 * MARGIN, _height(panel, len(lines), shown))
    page.text(MARGIN, MARGIN, "\n".join(lines), size=13, weight="bold")
    top = MARGIN + LINE * len(lines) + 0.08
    steps = f"step {step + 1} of {len(found.steps)}: {found.steps[step]:.3f}"
    page.text(MARGIN, top, f"{image}    {steps}    score of the pair: {found.score:.3f}", size=10.5)
    top += HEAD
    for direction, numbers in shown.items():
        attended = found.attention[direction]
        full = _full(direction, attended)
        top += BREAK
        page.text(MARGIN, top, SECTIONS[direction].format(full=full), size=9.5, color="#444444")
        top += SECTION
        bars = _bars(direction)
        row_height = TITLE + panel + bars + GAP
        for number, left, panel_top in _panels(numbers, top, row_height):
            axes = page.panel(left, panel_top, PANEL, panel)
            if direction == "t2i":
                faded.draw(axes, attended.weights[step, number], full)
                name = _name(found, number)
            else:
                alone = (np.arange(len(found.boxes)) == number).astype(np.float64)
                faded.draw(axes, alone, 1.0, label=False)
                below = page.panel(left, panel_top + panel + 0.05, PANEL, bars - 0.1)
                _draw_words(below, found, attended.weights[step, number], full)
                name = f"region {number}"
            title = f"{name}  {attended.cosines[step, number]:.2f}"
            axes.set_title(title, fontsize=10.5, pad=4, parse_math=False)
        top += row_height * -(-len(numbers) // COLUMNS)
    return page.figure


def _draw_words(axes: Axes, found: PairExplanation, weights: np.ndarray, full: float) -> None:
    """The words that a region attends to most, as bars."""
    best = np.argsort(-weights, kind="stable")[:WORDS]
    axes.barh(range(len(best)), weights[best], height=0.86, color=BAR)
    for line, word in enumerate(best.tolist()):
        text = f" {weights[word]:.2f}  {_name(found, word)}"
        axes.text(0, line, text, va="center", fontsize=8.5, parse_math=False)
    axes.set(xlim=(0, full), ylim=(WORDS - 0.5, -0.5))
    axes.set_axis_off()


def _shown(direction: str, cosines: np.ndarray) -> list[int]:
    """All words, or the regions of the highest cosine."""
    if direction == "t2i":
        return list(range(len(cosines)))
    return np.argsort(-cosines, kind="stable")[:STRONGEST].tolist()


def _full(direction: str, attended: Attention) -> float:
    """The weight of full colour, or of a full bar; the same for all steps.

    For words it is the median of their highest weights: with the maximum most words would be pale.
    """
    strongest = attended.weights.max(axis=2)
    return float(np.median(strongest) if direction == "t2i" else strongest.max())


def _bars(direction: str) -> float:
    """Room for bars under a panel."""
    return BARS if direction == "i2t" else 0.0


def _height(panel: float, lines: int, shown: dict[str, list[int]]) -> float:
    """Height of a page."""
    height = 2 * MARGIN + LINE * lines + 0.08 + HEAD
    for direction, numbers in shown.items():
        rows = -(-len(numbers) // COLUMNS)
        height += BREAK + SECTION + rows * (TITLE + panel + _bars(direction) + GAP)
    return height


def _panels(
    numbers: Sequence[int], top: float, row_height: float
) -> Iterator[tuple[int, float, float]]:
    """(number, left, top) of every panel, `COLUMNS` in a row."""
    for place, number in enumerate(numbers):
        row, column = divmod(place, COLUMNS)
        yield number, MARGIN + column * (PANEL + GAP), top + TITLE + row * row_height


def _name(found: PairExplanation, number: int) -> str:
    """A word, shortened, and marked if the model does not know it."""
    word = found.words[number]
    short = shorten(word, LONGEST)
    return f"{short} (unknown)" if word in found.unknown else short
