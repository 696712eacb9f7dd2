"""Views and meshes of objects in files: a folder of pictures, and an ``.npz``, per object."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hmgr_jax.data.pictures.decode import endings, load_picture
from hmgr_jax.data.shapes3d.mesh import FEATURES
from hmgr_jax.data.shapes3d.sources import MODALITIES
from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import open_arrays

_NUMBER = re.compile(r"\d+")


class ViewFolders:
    """``class/object/object.0.png`` and so on in a folder, listed on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, tuple[str, ...]] = {}

    def has(self, name: str) -> bool:
        """Whether the object ``class/object`` has a view."""
        return bool(self._list(name))

    def files(self, name: str) -> tuple[str, ...]:
        """File names of the views of an object, by number; ``UserError`` if there is none."""
        found = self._listed.get(name)
        if found is None:
            found = tuple(sorted(self._list(name), key=_last_number))
            if not found:
                raise UserError(
                    f"{self.folder / name} holds no view (.png or .jpg): add them, or leave the "
                    "object out by data.corrupt=skip."
                )
            self._listed[name] = found
        return found

    def _list(self, name: str) -> list[str]:
        """File names of the pictures of an object."""
        folder = self.folder / name
        listed = folder.iterdir() if folder.is_dir() else ()
        seen = [path for path in listed if not path.name.startswith(".")]
        return [path.name for path in seen if path.suffix.lower() in endings()]

    def load(self, name: str, k: int) -> Image.Image:
        """Decode a view in RGB; ``UserError`` names an unreadable file."""
        return load_picture(self.folder / name / self.files(name)[k])


def _last_number(name: str) -> tuple[int, str]:
    """Sort key of a view, by its last number: ``chair_0001.12.png`` after ``chair_0001.9.png``."""
    numbers = _NUMBER.findall(name.rpartition(".")[0])
    return (int(numbers[-1]) if numbers else 0, name)


DIALECTS = (("face", "neighbor_index"), ("faces", "neighbors"))
"""Names of the arrays: of the cross-modal center loss, and of MeshNet's newer release."""


def find_meshes(folder: Path) -> dict[str, dict[str, Path]]:
    """Find ``class/split/object.npz`` as {split: {``class/object``: file}}."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*/*/*.npz")):
        kind, split = path.parts[-3], path.parts[-2]
        found.setdefault(split, {})[f"{kind}/{path.stem}"] = path
    return found


def read_faces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read features float32 [F, 15] and neighbours int32 [F, 3] by either pair of names.

    Raises:
        UserError: the file is missing, damaged, has other arrays, or holds NaN.
    """
    if not path.is_file():
        raise UserError(
            f"There is no {path}: put it there, or leave the object out by data.corrupt=skip."
        )
    with open_arrays(path, "copy it again.") as arrays:
        names = next((pair for pair in DIALECTS if set(pair) <= set(arrays)), None)
        if names is None:
            raise UserError(
                f"{path} holds {', '.join(arrays) or 'nothing'} where face and "
                "neighbor_index, or faces and neighbors, were expected: prepare it again."
            )
        features, neighbours = (np.asarray(arrays[name]) for name in names)
    return _checked(path, features, neighbours)


def _checked(
    path: Path, features: np.ndarray, neighbours: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    count = len(features) if features.ndim else 0
    kinds = features.dtype.kind + neighbours.dtype.kind
    shapes = (features.shape, neighbours.shape)
    if not count or shapes != ((count, FEATURES), (count, 3)) or kinds not in ("fi", "fu"):
        raise UserError(
            f"{path} has faces {list(features.shape)} and neighbours {list(neighbours.shape)} "
            f"where [F, {FEATURES}] and [F, 3] were expected: prepare it again."
        )
    if not np.isfinite(features).all():
        raise UserError(f"{path} has a face with NaN or infinity: prepare it again.")
    if neighbours.min() < 0 or neighbours.max() >= count:
        raise UserError(
            f"{path} names neighbour {int(neighbours.max())} where its faces are numbered from 0 "
            f"to {count - 1}: prepare it again."
        )
    return features.astype(np.float32), neighbours.astype(np.int32)


class FiledObjects:
    """Objects ``names`` (``class/object``) of a split, with the given modalities."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        views: ViewFolders | None,
        clouds: np.ndarray | None,
        meshes: Mapping[str, Path] | None,
    ) -> None:
        self.names, self._views, self._clouds = tuple(names), views, clouds
        self._meshes = None if meshes is None else [meshes[name] for name in names]
        given = (views, clouds, meshes)
        self.modalities = tuple(
            m for m, what in zip(MODALITIES, given, strict=True) if what is not None
        )

    def __len__(self) -> int:
        return len(self.names)

    def select(self, chosen: np.ndarray) -> FiledObjects:
        """Select objects by index."""
        found = copy.copy(self)
        found.names = tuple(self.names[i] for i in chosen.tolist())
        found._clouds = None if self._clouds is None else self._clouds[chosen]
        meshes = self._meshes
        found._meshes = None if meshes is None else [meshes[i] for i in chosen.tolist()]
        return found

    def views(self, number: int) -> int:
        """Number of files."""
        return len(self._check_given(self._views).files(self.names[number]))

    def view(self, number: int, k: int) -> Image.Image:
        """Decode the k-th view."""
        return self._check_given(self._views).load(self.names[number], k)

    def points(self, number: int) -> np.ndarray:
        """Row of the clouds."""
        found: np.ndarray = self._check_given(self._clouds)[number]
        return found

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Read the faces of an object from its file."""
        return read_faces(self._check_given(self._meshes)[number])

    @staticmethod
    def _check_given(what: Any) -> Any:
        if what is None:
            raise UserError(
                "The objects lack a modality that the model reads: give its folder in data.objects."
            )
        return what
