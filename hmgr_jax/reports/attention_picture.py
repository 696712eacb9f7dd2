"""A page a matching step: what every word looked at, and which words the regions attended to.

Sizes are in inches, counted from the top left corner of the page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hmgr_jax.reports.explanation import Attention, PairExplanation
from hmgr_jax.reports.faded_picture import FadedPicture

COLUMNS, PANEL, GAP, MARGIN = 6, 2.05, 0.15, 0.3
LINE, HEAD, SECTION, TITLE, BARS = 0.24, 0.3, 0.26, 0.3, 0.95
BREAK = 0.14
TALLEST, FLATTEST = 1.5, 0.5
"""Height of a panel by its width; a picture beyond that leaves room at its sides."""
STRONGEST, WORDS = 12, 4
"""Regions that are shown, and words of each."""
LETTERS, LONGEST = 118, 20
"""Of a line of the sentence, and of a word."""
BAR = "#f9c784"
SECTIONS = {
    "t2i": "Words attend to regions. Above a picture: the word and its cosine with what it "
    "attended to; at the frame: the highest weight; full colour from weight {full:.2f} on.",
    "i2t": "Regions attend to words. Above a picture: the region and its cosine with what it "
    "attended to (the highest first); below: the words of the highest weights.",
}


def draw_step(
    picture: np.ndarray | None, found: PairExplanation, step: int, sentence: str, image: str
) -> Figure:
    """The page of matching step ``step`` (from 0).

    Args:
        picture: uint8 [H, W, 3]; None draws the boxes on a blank canvas.
        found: the numbers.
        step: which step.
        sentence: for the head of the page.
        image: its name, likewise.
    """
    faded = FadedPicture(picture, found.boxes)
    tall, wide = faded.size
    panel = PANEL * min(max(tall / wide, FLATTEST), TALLEST)
    lines = textwrap.wrap(sentence, LETTERS) or [sentence]
    shown = {d: _shown(d, a.cosines[step]) for d, a in found.attention.items()}
    page = _Page(_height(panel, len(lines), shown))
    page.text("\n".join(lines), LINE * len(lines) + 0.08, size=13, weight="bold")
    steps = f"step {step + 1} of {len(found.steps)}: {found.steps[step]:.3f}"
    page.text(f"{image}    {steps}    score of the pair: {found.score:.3f}", HEAD, size=10.5)
    for direction, numbers in shown.items():
        attended = found.attention[direction]
        full = _full(direction, attended)
        page.top += BREAK
        page.text(SECTIONS[direction].format(full=full), SECTION, size=9.5, colour="#444444")
        of = _draw_word if direction == "t2i" else _draw_region
        for number, axes, below in page.panels(numbers, panel, _below(direction)):
            name = of(faded, found, attended, (step, number), full, axes, below)
            title = f"{name}  {attended.cosines[step, number]:.2f}"
            axes.set_title(title, fontsize=10.5, pad=4, parse_math=False)
    return page.figure


def _draw_word(
    faded: FadedPicture,
    found: PairExplanation,
    attended: Attention,
    place: tuple[int, int],
    full: float,
    axes: Axes,
    below: Axes | None,
) -> str:
    """The regions that a word attends to; the name of the panel."""
    del below
    faded.draw(axes, attended.weights[place], full)
    return _name(found, place[1])


def _draw_region(
    faded: FadedPicture,
    found: PairExplanation,
    attended: Attention,
    place: tuple[int, int],
    full: float,
    axes: Axes,
    below: Axes | None,
) -> str:
    """One region, and the words that it attends to most; the name of the panel."""
    alone = np.arange(len(found.boxes)) == place[1]
    faded.draw(axes, alone.astype(np.float64), 1.0, label=False)
    assert below is not None
    weights = attended.weights[place]
    best = np.argsort(-weights, kind="stable")[:WORDS]
    below.barh(range(len(best)), weights[best], height=0.86, color=BAR)
    for line, word in enumerate(best.tolist()):
        text = f" {weights[word]:.2f}  {_name(found, word)}"
        below.text(0, line, text, va="center", fontsize=8.5, parse_math=False)
    below.set(xlim=(0, full), ylim=(WORDS - 0.5, -0.5))
    below.set_axis_off()
    return f"region {place[1]}"


def _shown(direction: str, cosines: np.ndarray) -> list[int]:
    """All words, but only the regions of the highest cosine."""
    if direction == "t2i":
        return list(range(len(cosines)))
    return np.argsort(-cosines, kind="stable")[:STRONGEST].tolist()


def _full(direction: str, attended: Attention) -> float:
    """The weight of full colour, or of a bar across; of all steps, so that pages compare.

    Half of the words have such a weight: a scale to the highest of all would leave the rest pale.
    """
    strongest = attended.weights.max(axis=2)
    return float(np.median(strongest) if direction == "t2i" else strongest.max())


def _below(direction: str) -> float:
    """Room under a panel."""
    return BARS if direction == "i2t" else 0.0


def _height(panel: float, lines: int, shown: dict[str, list[int]]) -> float:
    """Of a whole page."""
    height = 2 * MARGIN + LINE * lines + 0.08 + HEAD
    for direction, numbers in shown.items():
        rows = -(-len(numbers) // COLUMNS)
        height += BREAK + SECTION + rows * (TITLE + panel + _below(direction) + GAP)
    return height


class _Page:
    """A figure that is filled from the top."""

    def __init__(self, height: float) -> None:
        self.width, self.height = COLUMNS * (PANEL + GAP) - GAP + 2 * MARGIN, height
        self.top = MARGIN
        self.figure = Figure(figsize=(self.width, height), dpi=100, facecolor="white")

    def text(
        self,
        text: str,
        height: float,
        *,
        size: float,
        weight: str = "normal",
        colour: str = "black",
    ) -> None:
        """A paragraph."""
        self.figure.text(
            MARGIN / self.width,
            1 - self.top / self.height,
            text,
            fontsize=size,
            fontweight=weight,
            color=colour,
            va="top",
            parse_math=False,
        )
        self.top += height

    def panels(
        self, numbers: Sequence[int], height: float, below: float
    ) -> Iterator[tuple[int, Axes, Axes | None]]:
        """Every number with its panel, and with axes under it where there is room ``below``."""
        for start in range(0, len(numbers), COLUMNS):
            self.top += TITLE
            for column, number in enumerate(numbers[start : start + COLUMNS]):
                left = MARGIN + column * (PANEL + GAP)
                panel = self._axes(left, self.top, height)
                under = self._axes(left, self.top + height + 0.05, below - 0.1) if below else None
                yield number, panel, under
            self.top += height + below + GAP

    def _axes(self, left: float, top: float, height: float) -> Axes:
        bottom = self.height - top - height
        where = (left / self.width, bottom / self.height, PANEL / self.width, height / self.height)
        return self.figure.add_axes(where)


def _name(found: PairExplanation, number: int) -> str:
    """A word, cut where it is long, and marked where the model does not know it."""
    word = found.words[number]
    short = word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…"
    return f"{short} (unknown)" if word in found.unknown else short
