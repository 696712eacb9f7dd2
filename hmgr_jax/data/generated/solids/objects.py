"""Views, clouds and meshes of generated solids, made on first use or stored in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hmgr_jax.data.generated.solids import make_solid
from hmgr_jax.data.generated.worlds.scene import generator
from hmgr_jax.data.shapes3d.mesh import edge_neighbours, face_features, normalise, sample_points
from hmgr_jax.data.shapes3d.render import cameras_around, render
from hmgr_jax.data.shapes3d.sources import MODALITIES
from hmgr_jax.files.arrays import read_npz
from hmgr_jax.files.reading import readable
from hmgr_jax.files.workdir import replacing


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


class GeneratedSolids:
    """The first ``count`` solids of a split; ``sizes`` are views, pixels and points of each.

    Solids are cached (some 100 kB each with 12 views of 72 pixels); a pickle has none.
    """

    def __init__(self, seed: int, split: str, count: int, sizes: tuple[int, int, int]) -> None:
        self.seed, self.split, self.count, self.sizes = seed, split, count, sizes
        self._made: dict[int, Made] = {}

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}

    def __getitem__(self, number: int) -> Made:
        found = self._made.get(number)
        if found is None:
            found = self._made[number] = make(self.seed, self.split, number, *self.sizes)
        return found


class SolidObjects:
    """Solids, generated or of a file, as `Objects`."""

    modalities: tuple[str, ...] = MODALITIES

    def __init__(self, solids: GeneratedSolids | list[Made]) -> None:
        self.solids = solids

    def __len__(self) -> int:
        return len(self.solids)

    def views(self, number: int) -> int:
        """Number of views of every solid."""
        if isinstance(self.solids, GeneratedSolids):
            return self.solids.sizes[0]
        return len(self.solids[number].views)

    def view(self, number: int, k: int) -> Image.Image:
        """A rendered view, grey."""
        return Image.fromarray(self.solids[number].views[k])

    def points(self, number: int) -> np.ndarray:
        """Points on the surface."""
        return self.solids[number].points

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and neighbours of the faces."""
        return self.solids[number].features, self.solids[number].neighbours


def load_or_make(path: Path, solids: GeneratedSolids) -> list[Made]:
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
        with replacing(path) as out:
            np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    advice = "remove it; the next run makes it again."
    found = read_npz(path, advice, ("starts", "views", "points", "face", "neighbor_index"))
    with readable(path, "solids", advice):
        cuts = found["starts"][1:-1]
        features, neighbours = (np.split(found[x], cuts) for x in ("face", "neighbor_index"))
        return list(map(Made, found["views"], found["points"], features, neighbours))
