"""A folder with one ``.npy`` or ``.npz`` an image, named by its id."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity
from hmgr_jax.preparation.region_arrays import read_regions

ENDINGS = (".npz", ".npy")


class FileStore:
    """``FOLDER/{id}.npz`` or ``.npy``, in subfolders too; an ``.npz`` may hold boxes.

    The first file tells the shape and whether there are boxes; a file that differs is refused.
    """

    def __init__(self, path: Path, array: str | None, *, with_boxes: bool = True) -> None:
        self.path, self.array, self.with_boxes = path, array, with_boxes
        self.files: dict[str, Path] = {}
        for file in sorted(path.rglob("*")):
            if file.suffix in ENDINGS and file.is_file():
                self._add(file)
        if not self.files:
            raise UserError(
                f"{path} holds no .npy or .npz: give a folder with one an image, named by its id."
            )
        first = self._one(next(iter(self.files)))
        self.shape = (first[FEATURES].shape[0], first[FEATURES].shape[1])
        self.has_boxes = BOXES in first
        self.bytes_an_image = 3 * first[FEATURES].nbytes

    def _add(self, file: Path) -> None:
        name = file.relative_to(self.path).with_suffix("").as_posix()
        if name in self.files:
            raise UserError(
                f"{file} and {self.files[name].name} are features of the same image: remove one."
            )
        self.files[name] = file

    @property
    def ids(self) -> Mapping[str, Path]:
        """{id: file}."""
        return self.files

    def read(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Features, and boxes where there are any, of ``ids``."""
        found = [self._checked(name) for name in ids]
        kinds = (FEATURES, BOXES) if self.has_boxes else (FEATURES,)
        return {kind: np.stack([one[kind] for one in found]) for kind in kinds}

    def _checked(self, name: str) -> dict[str, np.ndarray]:
        found = self._one(name)
        if found[FEATURES].shape != self.shape:
            raise UserError(
                f"{self.where(name)} holds features of shape {found[FEATURES].shape} where "
                f"{next(iter(self.files.values())).name} has {self.shape}: extract all images "
                "with the same number of regions."
            )
        if self.has_boxes and BOXES not in found:
            raise UserError(
                f"{self.where(name)} holds no boxes where others do: extract it again, or leave "
                "all out with --no-boxes."
            )
        return found

    def _one(self, name: str) -> dict[str, np.ndarray]:
        where = self.where(name)
        arrays = _arrays(self.files[name])
        key = self.array if len(arrays) > 1 else None
        return read_regions(arrays, key, where, with_boxes=self.with_boxes)

    def where(self, name: str) -> str:
        """The file."""
        return str(self.files[name])

    def identity(self, ids: Sequence[str]) -> str:
        """Of the files that are read."""
        return identity(self.files[name] for name in ids)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, but for pickled objects, which bottom-up's files hold too."""
    try:
        with path.open("rb") as file:  # numpy leaves a bad file open
            found = np.load(file, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                return {"features": found}
            arrays = {}
            for name in found.files:
                with contextlib.suppress(ValueError):
                    arrays[name] = found[name]
            return arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no .npy or .npz that can be read ({error}): extract it again."
        ) from None
