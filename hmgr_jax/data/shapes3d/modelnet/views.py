"""Rendered views of objects: a folder of pictures an object."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from hmgr_jax.data.pictures.decode import ENDINGS, load_picture
from hmgr_jax.errors import UserError

_NUMBER = re.compile(r"\d+")


class ViewFolders:
    """``class/object/object.0.png`` and so on below a folder; listed when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, tuple[str, ...]] = {}

    def has(self, name: str) -> bool:
        """Whether there is a view of the object ``class/object``."""
        folder = self.folder / name
        return folder.is_dir() and any(x.name.endswith(ENDINGS) for x in folder.iterdir())

    def files(self, name: str) -> tuple[str, ...]:
        """File names of the views of an object by their numbers.

        Raises ``UserError`` where there is none.
        """
        found = self._listed.get(name)
        if found is None:
            folder = self.folder / name
            listed = [p.name for p in folder.iterdir()] if folder.is_dir() else []
            found = tuple(sorted((x for x in listed if x.endswith(ENDINGS)), key=_last_number))
            if not found:
                raise UserError(
                    f"{folder} holds no view (.png or .jpg): render it again, or leave the object "
                    "out by data.corrupt=skip."
                )
            self._listed[name] = found
        return found

    def load(self, name: str, k: int) -> Image.Image:
        """A view in colours; ``UserError`` names a file that cannot be read."""
        return load_picture(self.folder / name / self.files(name)[k])


def _last_number(name: str) -> tuple[int, str]:
    """Views are numbered at the end: ``chair_0001.12.png`` comes after ``chair_0001.9.png``."""
    numbers = _NUMBER.findall(name.rpartition(".")[0])
    return (int(numbers[-1]) if numbers else 0, name)
