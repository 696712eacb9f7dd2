"""A contact sheet: families of scenes with their boxes and captions, to look at."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hmgr_jax.data.generated.worlds.captions import Caption, make_family
from hmgr_jax.data.generated.worlds.regions import detect
from hmgr_jax.data.generated.worlds.render import PIXELS, render
from hmgr_jax.data.generated.worlds.scene import SIBLINGS, Scene

SIDE, GAP, NOTES = 3.7, 0.35, 2.4
"""Inches: side of a picture, space between columns, and room for captions below a picture."""
WRAP = 60
"""Characters a line of the captions."""


def draw_sheet(path: Path, *, seed: int, split: str = "train", families: int = 3) -> None:
    """Write a PNG with a row a family and a column a sibling."""
    pitch, rise = SIDE + GAP, SIDE + NOTES
    width, height = GAP + SIBLINGS * pitch, GAP + families * rise
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    for row in range(families):
        family = make_family(seed, split, row)
        for column, scene in enumerate(family.scenes):
            left, bottom = GAP + column * pitch, height - GAP - row * rise - SIDE
            where = (left / width, bottom / height, SIDE / width, SIDE / height)
            axis = figure.add_axes(where)
            _draw_scene(axis, scene)
            _write_captions(axis, family.captions[column])
    figure.savefig(path, format="png")


def _draw_scene(axis: Axes, scene: Scene) -> None:
    axis.imshow(render(scene), interpolation="nearest")
    for x1, y1, x2, y2 in (detect(scene) * PIXELS - 0.5).tolist():
        box = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="#444444", linewidth=0.9)
        axis.add_patch(box)
    title = f"{scene.split} {scene.index}   (family {scene.family})"
    axis.set_title(title, fontsize=10, loc="left", color="#333333")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color("#bbbbbb")


def _write_captions(axis: Axes, captions: tuple[Caption, ...]) -> None:
    lines = [
        textwrap.fill(caption.text, WRAP, initial_indent="• ", subsequent_indent="   ")
        for caption in captions
    ]
    axis.text(
        0,
        -0.03,
        "\n".join(lines),
        transform=axis.transAxes,
        va="top",
        fontsize=8.7,
        linespacing=1.35,
        color="#222222",
    )
