"""A page of relations: which regions, and which words, took most from which others."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from hmgr_jax.reports.explanation import Edge, PairExplanation
from hmgr_jax.reports.faded_picture import FadedPicture

WIDTH, HEAD, WORDS, MARGIN = 13.0, 1.0, 2.4, 0.3
"""Inches: of the page, its head, the rows of words, and its borders."""
LEGEND = "An arrow points at the node that takes; the thicker, the more of what it takes."
SHOWN = {"image": 10, "text": 12}
"""Edges drawn of each layer."""
LETTERS, LONGEST = 110, 14
ARROW, WORD = "#e8590c", "#1c7ed6"


def draw_relations(
    picture: np.ndarray | None, found: PairExplanation, sentence: str, image: str
) -> Figure:
    """A column a graph layer: regions in the picture above, words in a row below.

    An arrow goes from the node that was looked at to the one that looked; the thicker, the more of
    what that one took. Loops are left out.

    Args:
        picture: uint8 [H, W, 3]; None draws the boxes on a blank canvas.
        found: the numbers, with relations.
        sentence: for the head of the page.
        image: its name, likewise.
    """
    layers = max(len(weights) for weights in found.relations.values())
    faded = FadedPicture(picture, found.boxes)
    tall, wide = faded.size
    column = (WIDTH - (layers + 1) * MARGIN) / layers
    above = min(column * tall / wide, 7.0) if "image" in found.relations else 0.0
    below = WORDS if "text" in found.relations else 0.0
    height = HEAD + above + below + 3 * MARGIN
    figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor="white")
    title = "\n".join(textwrap.wrap(sentence, LETTERS)[:2] or [sentence])
    figure.text(
        MARGIN / WIDTH, 1 - 0.1 / height, title, va="top", fontsize=12, weight="bold",
        parse_math=False,
    )  # fmt: skip

    figure.text(MARGIN / WIDTH, 1 - 0.36 / height, LEGEND, va="top", fontsize=9, color="#495057")

    def axes(layer: int, top: float, tall: float) -> Axes:
        left = MARGIN + layer * (column + MARGIN)
        where = left / WIDTH, 1 - (top + tall) / height, column / WIDTH, tall / height
        return figure.add_axes(where)

    for modality, top, room in (("image", HEAD, above), ("text", HEAD + above + MARGIN, below)):
        for layer in range(len(found.relations.get(modality, ()))):
            panel = axes(layer, top, room)
            edges = found.strongest(modality, layer, SHOWN[modality])
            if modality == "image":
                _draw_regions(panel, faded, edges)
                name = f"{image}    graph layer {layer + 1}    score {found.score:.3f}"
                panel.set_title(name, fontsize=9.5, parse_math=False)
            else:
                _draw_words(panel, found.words, edges)
    return figure


def _draw_regions(axes: Axes, faded: FadedPicture, edges: Sequence[Edge]) -> None:
    """The regions that edges join in their colours, arrows between their middles."""
    joined = np.zeros(len(faded.boxes))
    for edge in edges:
        joined[[edge.to, edge.source]] = 1.0
    size = np.tile(faded.size[::-1], 2)
    corners = faded.boxes * size - 0.5
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    if joined.any():
        faded.draw(axes, joined, 1.0, frame=False)
    for edge in reversed(edges):
        _arrow(axes, middle[edge.source], middle[edge.to], edge.weight, ARROW, 0.15)
    for node in np.flatnonzero(joined):
        x, y = middle[node].tolist()
        axes.text(
            x, y, str(node), fontsize=7.5, ha="center", va="center", color="white",
            bbox={"facecolor": "#343a40", "edgecolor": "none", "pad": 1.2},
        )  # fmt: skip
    axes.set(xticks=[], yticks=[])


def _draw_words(axes: Axes, words: Sequence[str], edges: Sequence[Edge]) -> None:
    """Arcs over the words in their order."""
    for place, word in enumerate(words):
        short = word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…"
        axes.text(
            place, -0.05, short, rotation=60, ha="right", va="top", fontsize=8, parse_math=False
        )
    for edge in edges:
        bend = -0.45 if edge.source < edge.to else 0.45
        _arrow(axes, (edge.source, 0.0), (edge.to, 0.0), edge.weight, WORD, bend)
    axes.set(xlim=(-1, len(words)), ylim=(-1.3, max(1.0, len(words) * 0.22)))
    axes.set_axis_off()


def _arrow(
    axes: Axes,
    start: Sequence[float] | np.ndarray,
    end: Sequence[float] | np.ndarray,
    weight: float,
    colour: str,
    bend: float,
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            tuple(start),
            tuple(end),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=9,
            linewidth=0.6 + 3.4 * weight,
            color=colour,
            alpha=0.35 + 0.6 * min(weight, 1.0),
            clip_on=False,
        )
    )
