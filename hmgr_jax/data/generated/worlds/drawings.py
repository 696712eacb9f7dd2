"""Scenes as pictures, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from hmgr_jax.data.generated.worlds.family import make_family
from hmgr_jax.data.generated.worlds.render import render
from hmgr_jax.data.generated.worlds.scene import SIBLINGS, Scene


class SceneDrawings:
    """Generated scenes as pictures of ``pixels`` by ``pixels``, drawn when first asked for.

    Drawings are kept (12 kB each at 64 pixels); a copy for another process begins without any.
    """

    def __init__(self, scenes: Sequence[Scene], pixels: int) -> None:
        self.scenes, self.pixels = tuple(scenes), pixels
        self._drawn: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.scenes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_drawn": {}}

    def load(self, number: int) -> Image.Image:
        """Draw a scene, the same picture every time."""
        found = self._drawn.get(number)
        if found is None:
            found = self._drawn[number] = render(self.scenes[number], self.pixels)
        return Image.fromarray(found)


def world_picture(data: ConfigDict, split: str, number: int) -> np.ndarray:
    """Scene ``number`` of a split of the worlds that ``data`` describes, uint8 [H, W, 3]."""
    family = make_family(data.worlds.seed, split, number // SIBLINGS)
    return render(family.scenes[number % SIBLINGS])
