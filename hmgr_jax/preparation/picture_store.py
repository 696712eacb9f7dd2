"""A folder of pictures as a store of grid features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.data.pictures import ENDINGS, read_picture
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.grid import SIZE, encode_grid, grid_boxes
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity


class PictureStore:
    """Pictures by file name and, where no other has it, by name without ending.

    Features are those of `hmgr_jax.preparation.grid`, boxes the patches.
    """

    has_boxes = True

    def __init__(self, path: Path, grid: int) -> None:
        if not path.is_dir():
            raise UserError(f"{path} is no folder: give --pictures the folder of the pictures.")
        self.path, self.grid = path, grid
        self.shape = (grid * grid, SIZE)
        self.bytes_an_image = 4 * grid * grid * (SIZE + 4)
        found = [file for file in sorted(path.rglob("*")) if file.suffix in ENDINGS[1:]]
        if not found:
            raise UserError(f"{path} holds no .jpg, .jpeg or .png: give the folder of pictures.")
        self.files: dict[str, Path] = {file.relative_to(path).as_posix(): file for file in found}
        stems = [file.relative_to(path).with_suffix("").as_posix() for file in found]
        times = Counter(stems)
        for stem, file in zip(stems, found, strict=True):
            if times[stem] == 1:
                self.files.setdefault(stem, file)

    @property
    def ids(self) -> Mapping[str, Path]:
        """{file name, with and without its ending: file}."""
        return self.files

    def read(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Features and boxes of the pictures ``ids``."""
        values = [encode_grid(read_picture(self.files[name]), self.grid) for name in ids]
        boxes = np.broadcast_to(grid_boxes(self.grid)[None], (len(ids), self.grid**2, 4))
        return {FEATURES: np.stack(values), BOXES: boxes}

    def where(self, name: str) -> str:
        """The file."""
        return str(self.files[name])

    def identity(self, ids: Sequence[str]) -> str:
        """Of the pictures that are read."""
        return identity(self.files[name] for name in ids)
