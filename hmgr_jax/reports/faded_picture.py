"""A picture with attended regions in colour and the rest faded to pale grey."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

PALE, GREY_LEFT = 245.0, 0.35
"""Tone of unattended parts, and the share of the grey picture that is mixed into it."""
CANVAS = (247, 140, 40)
"""RGB of attended regions if there is no picture."""
FRAME, LINES = "#e8590c", "#9a9a9a"
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class FadedPicture:
    """A picture with its regions, drawn once per set of weights."""

    picture: np.ndarray | None
    """uint8 [H, W, 3]; None draws all boxes on a blank canvas."""
    boxes: np.ndarray
    """float [R, 4]: x1, y1, x2, y2 in 0..1."""

    @cached_property
    def _colours(self) -> np.ndarray:
        if self.picture is None:
            return np.full((300, 300, 3), CANVAS, np.float64)
        return self.picture.astype(np.float64)

    @cached_property
    def _pale(self) -> np.ndarray:
        grey = (self._colours @ np.array(LUMA))[..., None]
        if self.picture is None:
            return np.full_like(self._colours, PALE)
        return PALE + GREY_LEFT * (grey - PALE) + np.zeros(3)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._colours.shape[0], self._colours.shape[1]

    @cached_property
    def _corners(self) -> np.ndarray:
        """Boxes [R, 4] in pixels."""
        return self.boxes * np.tile(self.size[::-1], 2)

    def heat(self, weights: np.ndarray) -> np.ndarray:
        """[H, W]: the highest weight [R] of the regions at each pixel, else 0."""
        heat = np.zeros(self.size)
        edges = np.rint(self._corners).astype(int).tolist()
        for (x1, y1, x2, y2), weight in zip(edges, weights, strict=True):
            inside = heat[y1:y2, x1:x2]
            np.maximum(inside, weight, out=inside)
        return heat

    def faded(self, weights: np.ndarray, full: float) -> np.ndarray:
        """uint8 [H, W, 3]: colours in proportion to the weights [R], full from ``full`` on."""
        share = np.clip(self.heat(weights) / full, 0, 1)[..., None]
        return np.rint(self._pale + share * (self._colours - self._pale)).astype(np.uint8)

    def draw(
        self,
        axes: Axes,
        weights: np.ndarray,
        full: float,
        *,
        frame: bool = True,
        label: bool = True,
    ) -> None:
        """Draw the picture with a frame and the weight at the region of the highest weight."""
        tall, wide = self.size
        axes.imshow(self.faded(weights, full), interpolation="antialiased")
        boxes = self._corners - 0.5  # the first pixel's centre is 0 in imshow
        if self.picture is None:
            for box in boxes:
                axes.add_patch(_frame(box, LINES, 0.6))
        best = int(np.argmax(weights))
        if frame:
            axes.add_patch(_frame(boxes[best], "white", 3.0))
            axes.add_patch(_frame(boxes[best], FRAME, 1.6))
        if frame and label:
            self._label(axes, boxes[best], float(weights[best]))
        axes.set(xticks=[], yticks=[], xlim=(-0.5, wide - 0.5), ylim=(tall - 0.5, -0.5))
        axes.spines[:].set_color("#bbbbbb")

    def _label(self, axes: Axes, box: np.ndarray, weight: float) -> None:
        """Write the weight above the box if there is room, else inside; never past the border."""
        tall, wide = self.size
        x1, y1, x2, _ = box.tolist()
        left = x1 < 0.8 * wide
        above = y1 > 0.1 * tall
        axes.text(
            x1 if left else x2,
            y1 - 0.015 * tall if above else y1 + 0.02 * tall,
            f"{weight:.2f}",
            ha="left" if left else "right",
            va="bottom" if above else "top",
            fontsize=8,
            color="white",
            bbox={"facecolor": FRAME, "edgecolor": "none", "pad": 1.2},
        )


def _frame(box: np.ndarray, colour: str, width: float) -> Rectangle:
    x1, y1, x2, y2 = box.tolist()
    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, linewidth=width)
