"""Views, clouds and meshes of generated solids, made on first use or stored in a file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hmgr_jax.data.generated.solids import make_solid
from hmgr_jax.data.generated.worlds.scene import generator
from hmgr_jax.data.shapes3d.mesh import edge_neighbours, face_features, normalise, sample_points
from hmgr_jax.data.shapes3d.render import cameras_around, render
from hmgr_jax.data.shapes3d.sources import MODALITIES
from hmgr_jax.errors import UserError


class Made(NamedTuple):
    """Modalities of a solid."""

    views: np.ndarray
    """uint8 [V, S, S]."""
    points: np.ndarray
    """float32 [n, 3]."""
    features: np.ndarray
    """float32 [F, 15]."""
    neighbours: np.ndarray
    """int32 [F, 3]."""


def make(seed: int, split: str, index: int, views: int, pixels: int, points: int) -> Made:
    """Make a solid in its three modalities, a pure function of the arguments."""
    mesh = normalise(make_solid(seed, split, index).mesh)
    drawn = sample_points(mesh, points, generator(seed, split, "points", index))
    pictures = render(mesh, cameras_around(views), pixels)
    return Made(pictures, drawn, face_features(mesh), edge_neighbours(mesh.faces))


class SolidObjects:
    """The first ``count`` solids of a split; ``sizes`` are views, pixels and points of each.

    Solids are cached (some 100 kB each with 12 views of 72 pixels); a pickle has none.
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
        """Number of views of every solid."""
        return self.sizes[0]

    def view(self, number: int, k: int) -> Image.Image:
        """A rendered view, grey."""
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


class StoredSolids:
    """Solids of a file, in memory."""

    modalities: tuple[str, ...] = MODALITIES

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                self._views, self._points = found["views"], found["points"]
                self._features, self._neighbours = found["face"], found["neighbor_index"]
                self._starts = found["starts"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} holds no readable solids ({error}): remove it; the next run makes it again."
            ) from None

    def __len__(self) -> int:
        return len(self._points)

    def views(self, number: int) -> int:
        """Number of views of every solid."""
        return self._views.shape[1]

    def view(self, number: int, k: int) -> Image.Image:
        """A rendered view, grey."""
        return Image.fromarray(self._views[number, k])

    def points(self, number: int) -> np.ndarray:
        """Points on the surface."""
        found: np.ndarray = self._points[number]
        return found

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and neighbours of the faces."""
        own = slice(self._starts[number], self._starts[number + 1])
        return self._features[own], self._neighbours[own]


def load_or_make(path: Path, solids: SolidObjects) -> StoredSolids:
    """Load solids from ``path``; if it is missing, make and write them atomically first.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = [solids[number] for number in range(len(solids))]
        arrays = {
            "views": np.stack([one.views for one in made]),
            "points": np.stack([one.points for one in made]),
            "face": np.concatenate([one.features for one in made]),
            "neighbor_index": np.concatenate([one.neighbours for one in made]),
            "starts": np.cumsum([0, *(len(one.features) for one in made)]),
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return StoredSolids(path)
