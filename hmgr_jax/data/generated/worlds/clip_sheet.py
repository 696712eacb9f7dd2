"""A contact sheet of clips: a row a clip with its frames in order, and its captions."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hmgr_jax.data.generated.worlds.clip import MOST_FRAMES, Clip, draw_clips
from hmgr_jax.data.generated.worlds.clip_captions import describe_clip
from hmgr_jax.data.generated.worlds.frames import render_frames
from hmgr_jax.data.generated.worlds.scene import SIBLINGS

SIDE, GAP, NOTES = 1.35, 0.06, 5.6
"""Inches: side of a frame, space between frames, and room for captions beside them."""
HEAD, APART = 0.35, 0.5
"""Inches: room above each row, and between families."""
WRAP = 82
"""Characters a line of the captions."""


def draw_clip_sheet(path: Path, *, seed: int, split: str = "train", families: int = 3) -> None:
    """Write a PNG with four rows a family."""
    rise = SIDE + HEAD
    width = 3 * GAP + MOST_FRAMES * (SIDE + GAP) + NOTES
    height = families * (SIBLINGS * rise + APART)
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    top = height
    for family in range(families):
        for clip in draw_clips(seed, split, family):
            _draw_clip(figure, clip, top - HEAD - SIDE, (width, height))
            top -= rise
        top -= APART
    figure.savefig(path, format="png")


def _draw_clip(figure: Figure, clip: Clip, bottom: float, size: tuple[float, float]) -> None:
    width, height = size
    for frame, picture in enumerate(render_frames(clip)):
        left = GAP + frame * (SIDE + GAP)
        axis = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
        axis.imshow(picture, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_color("#bbbbbb")
    lines = [
        textwrap.fill(caption, WRAP, initial_indent="• ", subsequent_indent="   ")
        for caption in describe_clip(clip)
    ]
    left, top = 2 * GAP + MOST_FRAMES * (SIDE + GAP), (bottom + SIDE) / height
    text = figure.text(left / width, top, "\n".join(lines), va="top", fontsize=8.7)
    text.set_linespacing(1.3)
    title = f"{clip.split} {clip.index}   (family {clip.family}, {clip.frames} frames)"
    above = top + 0.06 / height
    figure.text(GAP / width, above, title, fontsize=9, color="#333333", va="bottom")
