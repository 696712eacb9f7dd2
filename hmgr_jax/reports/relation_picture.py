"""A page of relations: which regions, and which words, took most from which others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from hmgr_jax.reports.explanation import Edge, PairExplanation
from hmgr_jax.reports.faded_picture import FadedPicture
from hmgr_jax.reports.grid import Page, shorten, wrap

WIDTH, HEAD, WORDS, MARGIN = 13.0, 1.0, 2.4, 0.3
"""Inches: the page, its head, the row of words, and the margins."""
LEGEND = "An arrow goes from the attended node to the attending node; its width is the weight."
SHOWN = {"image": 10, "text": 12}
"""Edges drawn per layer."""
LETTERS, LONGEST = 110, 14
ARROW, WORD = "#e8590c", "#1c7ed6"


def draw_relations(
    picture: np.ndarray | None, found: PairExplanation, sentence: str, image: str
) -> Figure:
    """Draw one column per graph layer: regions in the picture above, words in a row below.

    An arrow goes from the attended node to the attending node; its width is the weight. Self-loops
    are left out.

    Args:
        picture: uint8 [H, W, 3]; None draws the boxes on a blank canvas.
        found: the explanation, with relations.
        sentence: heading of the page.
        image: name of the picture, in the heading.
    """
    layers = max(len(weights) for weights in found.relations.values())
    faded = FadedPicture(picture, found.boxes)
    tall, wide = faded.size
    column = (WIDTH - (layers + 1) * MARGIN) / layers
    above = min(column * tall / wide, 7.0) if "image" in found.relations else 0.0
    below = WORDS if "text" in found.relations else 0.0
    height = HEAD + above + below + 3 * MARGIN
    page = Page(WIDTH, height)
    title = wrap(sentence, LETTERS, 2) or sentence
    page.text(MARGIN, 0.1, title, size=12, weight="bold")
    page.text(MARGIN, 0.36 + 0.2 * title.count("\n"), LEGEND, color="#495057")
    for modality, top, room in (("image", HEAD, above), ("text", HEAD + above + MARGIN, below)):
        for layer in range(len(found.relations.get(modality, ()))):
            panel = page.panel(MARGIN + layer * (column + MARGIN), top, column, room)
            edges = found.strongest(modality, layer, SHOWN[modality])
            if modality == "image":
                _draw_regions(panel, faded, edges)
                name = f"{image}    graph layer {layer + 1}    score {found.score:.3f}"
                panel.set_title(name, fontsize=9.5, parse_math=False)
            else:
                _draw_words(panel, found.words, edges)
    return page.figure


def _draw_regions(axes: Axes, faded: FadedPicture, edges: Sequence[Edge]) -> None:
    """Colour the regions that have edges, and draw arrows between their centres."""
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
    """Draw the words in order with arcs above them."""
    for place, word in enumerate(words):
        short = shorten(word, LONGEST)
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
