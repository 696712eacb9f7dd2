"""Pictures of scenes: coloured shapes on a pale background, with a little noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from hmgr_jax.data.generated.worlds.captions import make_family
from hmgr_jax.data.generated.worlds.scene import MOST, SIBLINGS, Backdrop, Scene
from hmgr_jax.data.generated.worlds.shapes import PALETTE, coverage

PIXELS = 96
TONE = 7.0
"""Standard deviation of an object's colour, of 255."""
GRAIN = 2.5
"""Standard deviation of single pixels, of 255."""
FINE = 4
"""Supersampling factor in both directions."""
WHOLE = (0.0, 0.0, 1.0, 1.0)


def render(scene: Scene, pixels: int = PIXELS) -> np.ndarray:
    """Render a scene, uint8 [pixels, pixels, 3]."""
    return _paint(scene, range(len(scene.things)), pixels)


def render_alone(scene: Scene, index: int, pixels: int = PIXELS) -> np.ndarray:
    """Render the background with object `index` only, uint8 [pixels, pixels, 3]."""
    return _paint(scene, [index], pixels)


def inks(scene: Scene) -> np.ndarray:
    """RGB (0..255) of each object, float64 [N, 3]: its palette colour with noise."""
    off = TONE * scene.generator("tones").standard_normal((MOST, 3))
    return PALETTE[[thing.colour for thing in scene.things]] + off[: len(scene.things)]


def background(backdrop: Backdrop, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """RGB (0..255) of the background at the points (x, y), float64 [..., 3]."""
    (right, down), (across, along, phase) = backdrop.slope, backdrop.wave
    ripple = 4 * np.sin(2 * np.pi * (across * x + along * y) + phase)
    shade = right * (x - 0.5) + down * (y - 0.5) + ripple
    return shade[..., None] + np.array(backdrop.tint)


def _paint(scene: Scene, shown: range | list[int], pixels: int) -> np.ndarray:
    middles = (np.arange(pixels) + 0.5) / pixels
    picture = background(scene.backdrop, *np.meshgrid(middles, middles))
    colours = inks(scene)
    for index in shown:
        share = coverage(scene.things[index], WHOLE, pixels, FINE)[..., None]
        picture += share * (colours[index] - picture)
    picture += GRAIN * scene.generator("grain").standard_normal(picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


class SceneDrawings:
    """Scenes as pictures of ``pixels`` by ``pixels``, rendered on first use.

    They are cached (12 kB each at 64 pixels); a pickle has none.
    """

    def __init__(self, scenes: Sequence[Scene], pixels: int) -> None:
        self.scenes, self.pixels = tuple(scenes), pixels
        self._drawn: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.scenes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_drawn": {}}

    def load(self, number: int) -> Image.Image:
        """Render a scene."""
        found = self._drawn.get(number)
        if found is None:
            found = self._drawn[number] = render(self.scenes[number], self.pixels)
        return Image.fromarray(found)


def world_picture(data: ConfigDict, split: str, number: int) -> np.ndarray:
    """Render scene ``number`` of a split of ``data.worlds``, uint8 [H, W, 3]."""
    family = make_family(data.worlds.seed, split, number // SIBLINGS)
    return render(family.scenes[number % SIBLINGS])
