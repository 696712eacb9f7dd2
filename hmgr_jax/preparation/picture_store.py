"""A folder of pictures as a store of grid features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.data.pictures.files import ENDINGS, read_picture
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.grid import SIZE, encode_grid, grid_boxes
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity


class PictureStore:
    """Pictures by file name and, where no other has it, by name without ending.

    Features are those of `hmgr_jax.preparation.grid`, boxes the patches.
    """

    has_boxes = True
    exact = True
    slow = False
    size = SIZE

    def __init__(self, path: Path, grid: int) -> None:
        if not path.is_dir():
            raise UserError(f"{path} is no folder: give --pictures the folder of the pictures.")
        self.path, self.grid = path, grid
        self.files = find_files(path, ENDINGS)
        if not self.files:
            raise UserError(f"{path} holds no .jpg, .jpeg or .png: give the folder of pictures.")

    @property
    def ids(self) -> Mapping[str, Path]:
        """{file name, with and without its ending: file}."""
        return self.files

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """The patches, of every picture as many."""
        return np.full(len(ids), self.grid**2)

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features and boxes of a picture."""
        picture = read_picture(self.files[name])
        return {FEATURES: encode_grid(picture, self.grid), BOXES: grid_boxes(self.grid)}

    def where(self, name: str) -> str:
        """The file."""
        return str(self.files[name])

    def identity(self, ids: Sequence[str]) -> str:
        """Of the pictures that are read."""
        return identity(self.files[name] for name in ids)


def find_files(root: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Files with one of ``endings``, by name and, where no other has it, by name without ending."""
    found = [file for file in sorted(root.rglob("*")) if file.suffix in endings]
    files = {file.relative_to(root).as_posix(): file for file in found}
    stems = [file.relative_to(root).with_suffix("").as_posix() for file in found]
    times = Counter(stems)
    for stem, file in zip(stems, found, strict=True):
        if times[stem] == 1:
            files.setdefault(stem, file)
    return files
