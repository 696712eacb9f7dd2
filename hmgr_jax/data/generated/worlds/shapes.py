"""Outlines of the shapes, and the share of every pixel that they cover."""

from __future__ import annotations

from functools import cache
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from hmgr_jax.data.generated.worlds.scene import SHAPES

Outline = tuple[tuple[np.ndarray, bool], ...]
"""Polygons [K, 2] in a square of half width 1, in drawing order: ink (True) or hole."""
PALETTE = np.array(
    [
        (216, 40, 44),
        (245, 134, 24),
        (242, 206, 36),
        (46, 160, 67),
        (38, 98, 214),
        (128, 58, 176),
        (246, 128, 184),
        (38, 38, 42),
    ],
    np.float64,
)
"""RGB (0..255) of COLOURS, in their order."""


class Outlined(Protocol):
    """A shape at a place."""

    @property
    def shape(self) -> int:
        """Index into SHAPES."""

    @property
    def x(self) -> float:
        """Centre, a share of the picture's width."""

    @property
    def y(self) -> float:
        """Centre, downwards."""

    @property
    def radius(self) -> float:
        """Half the side of the bounding square."""


def coverage(
    thing: Outlined, window: tuple[float, float, float, float], pixels: int, fine: int
) -> np.ndarray:
    """Share of each pixel that the object covers, float64 [pixels, pixels] in 0..1.

    `window` is the visible part of the picture: x1, y1, x2, y2, as fractions of the picture. `fine`
    is the supersampling factor; few pixels need a larger one.
    """
    side = pixels * fine
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    corner, size = np.array(window[:2]), np.array(window[2:]) - np.array(window[:2])
    # Pillow counts coordinates from the middle of the first pixel.
    offset = ((thing.x, thing.y) - corner) / size * side - 0.5
    for points, ink in outlines()[thing.shape]:
        corners = points * (thing.radius / size * side) + offset
        pen.polygon(corners.ravel().tolist(), fill=255 if ink else 0)
    return np.asarray(canvas.reduce(fine), np.float64) / 255


@cache
def extents() -> np.ndarray:
    """Smallest and largest x and y of each outline: x1, y1, x2, y2 [shapes, 4] in -1..1."""
    ink = [np.concatenate([points for points, ink in outline if ink]) for outline in outlines()]
    return np.array([[*points.min(axis=0), *points.max(axis=0)] for points in ink])


@cache
def outlines() -> tuple[Outline, ...]:
    """Outlines of SHAPES, in their order."""
    drawn: dict[str, Outline] = {
        "circle": ((_round(), True),),
        "square": ((np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.86, True),),
        "triangle": ((np.array([(0, -0.95), (1, 0.85), (-1, 0.85)]), True),),
        "star": ((_star(), True),),
        "cross": ((_cross(0.34), True),),
        "ring": ((_round(), True), (_round(0.56), False)),
        "heart": ((_heart(), True),),
        "moon": ((_moon(), True),),
    }
    return tuple(drawn[name] for name in SHAPES)


def _round(radius: float = 1.0) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _star() -> np.ndarray:
    turn = np.arange(10) * np.pi / 5 - np.pi / 2
    reach = np.where(np.arange(10) % 2, 0.42, 1.08)
    return reach[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _cross(arm: float) -> np.ndarray:
    quarter = [(arm, -1), (arm, -arm), (1, -arm)]
    turned = [[(x, y), (-y, x), (-x, -y), (y, -x)] for x, y in quarter]
    return np.array([turned[k][turn] for turn in range(4) for k in range(3)], np.float64)


def _heart() -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(turn) ** 3
    y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return np.stack([x / 16, (-2.5 - y) / 15.5], axis=1)


def _moon() -> np.ndarray:
    """A crescent, open to the right: an arc of the unit circle and a flatter one back."""
    horn = 0.28 * np.pi
    outer = np.linspace(horn, 2 * np.pi - horn, 24)
    tip = np.array([np.cos(horn), np.sin(horn)])
    centre, radius = 0.52, np.hypot(tip[0] - 0.52, tip[1])
    angle = np.arctan2(tip[1], tip[0] - centre)
    inner = np.linspace(2 * np.pi - angle, angle, 20)
    back = np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], axis=1)
    arc = np.concatenate([np.stack([np.cos(outer), np.sin(outer)], axis=1), back])
    return arc + np.array([0.14, 0])
