"""Generated solids as objects: views, clouds and meshes, made when first asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hmgr_jax.data.generated.solids.solid import make_solid
from hmgr_jax.data.generated.worlds.scene import generator
from hmgr_jax.data.shapes3d.cameras import around
from hmgr_jax.data.shapes3d.faces import edge_neighbours, face_features, normalised
from hmgr_jax.data.shapes3d.points import sample_points
from hmgr_jax.data.shapes3d.render import render
from hmgr_jax.data.shapes3d.store import MODALITIES


class Made(NamedTuple):
    """What is kept of a solid."""

    views: np.ndarray
    """uint8 [V, S, S]."""
    points: np.ndarray
    """float32 [n, 3]."""
    features: np.ndarray
    """float32 [F, 15]."""
    neighbours: np.ndarray
    """int32 [F, 3]."""


def make(seed: int, split: str, index: int, views: int, pixels: int, points: int) -> Made:
    """A solid in its three modalities, a pure function of the arguments."""
    mesh = normalised(make_solid(seed, split, index).mesh)
    drawn = sample_points(mesh, points, generator(seed, split, "points", index))
    pictures = render(mesh, around(views), pixels)
    return Made(pictures, drawn, face_features(mesh), edge_neighbours(mesh.faces))


class SolidObjects:
    """The first ``count`` solids of a split, with so many views and points of each.

    What was made is kept (some 100 kB each with 12 views of 72 pixels); a copy for another process
    begins with what is given as ``made``.
    """

    modalities: tuple[str, ...] = MODALITIES

    def __init__(self, seed: int, split: str, count: int, sizes: tuple[int, int, int]) -> None:
        self.seed, self.split, self.count = seed, split, count
        self.sizes = sizes
        self._made: dict[int, Made] = {}

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}

    def views(self, number: int) -> int:
        """As many as are made of every solid."""
        return self.sizes[0]

    def view(self, number: int, k: int) -> Image.Image:
        """A rendered picture, grey."""
        return Image.fromarray(self[number].views[k])

    def points(self, number: int) -> np.ndarray:
        """Points on the surface."""
        return self[number].points

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and neighbours of the faces."""
        return self[number].features, self[number].neighbours

    def __getitem__(self, number: int) -> Made:
        found = self._made.get(number)
        if found is None:
            found = self._made[number] = make(self.seed, self.split, number, *self.sizes)
        return found
