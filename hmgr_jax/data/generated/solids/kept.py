"""Generated solids kept in a file a split, so that another run need not make them again."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from hmgr_jax.data.generated.solids.objects import SolidObjects
from hmgr_jax.data.shapes3d.store import MODALITIES
from hmgr_jax.errors import UserError


class KeptSolids:
    """Solids in memory, all at once, as they lie in a file."""

    modalities: tuple[str, ...] = MODALITIES

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                self._views, self._points = found["views"], found["points"]
                self._features, self._neighbours = found["face"], found["neighbor_index"]
                self._starts = found["starts"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} holds no solids that can be read ({error}): remove it, and it is made "
                "again."
            ) from None

    def __len__(self) -> int:
        return len(self._points)

    def views(self, number: int) -> int:
        """As many as are kept of every solid."""
        return self._views.shape[1]

    def view(self, number: int, k: int) -> Image.Image:
        """A rendered picture, grey."""
        return Image.fromarray(self._views[number, k])

    def points(self, number: int) -> np.ndarray:
        """Points on the surface."""
        found: np.ndarray = self._points[number]
        return found

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and neighbours of the faces."""
        own = slice(self._starts[number], self._starts[number + 1])
        return self._features[own], self._neighbours[own]


def keep(path: Path, solids: SolidObjects) -> KeptSolids:
    """The solids as ``path`` has them; the file is made where it is not there, whole or not at all.

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
    return KeptSolids(path)
