"""3D objects by number: what of them is stored, read when it is asked for."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from PIL import Image

MODALITIES = ("image", "point", "mesh")


class Objects(Protocol):
    """Objects of one split; each may have pictures, a point cloud and a mesh."""

    modalities: tuple[str, ...]
    """Those of `MODALITIES` that every object has."""

    def __len__(self) -> int: ...

    def views(self, number: int) -> int:
        """How many pictures there are of an object, taken around it in this order."""
        ...

    def view(self, number: int, k: int) -> Image.Image:
        """One of them, grey or in colours; ``UserError`` names one that cannot be read."""
        ...

    def points(self, number: int) -> np.ndarray:
        """Points on its surface, float32 [n, 3], in random order, y up, in the unit ball."""
        ...

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [F, 15] and neighbours int32 [F, 3] of its faces.

        See `hmgr_jax.data.shapes3d.faces`.
        """
        ...


class ChosenObjects:
    """Some of the objects, in another order."""

    def __init__(self, objects: Objects, chosen: np.ndarray) -> None:
        self._objects, self._chosen = objects, np.asarray(chosen, np.int64)
        self.modalities = objects.modalities

    def __len__(self) -> int:
        return len(self._chosen)

    def views(self, number: int) -> int:
        """As of the object that is meant."""
        return self._objects.views(int(self._chosen[number]))

    def view(self, number: int, k: int) -> Image.Image:
        """As of the object that is meant."""
        return self._objects.view(int(self._chosen[number]), k)

    def points(self, number: int) -> np.ndarray:
        """As of the object that is meant."""
        return self._objects.points(int(self._chosen[number]))

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """As of the object that is meant."""
        return self._objects.faces(int(self._chosen[number]))
