"""Objects whose clouds, views and meshes lie in files of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hmgr_jax.data.shapes3d.modelnet.meshes import read_faces
from hmgr_jax.data.shapes3d.modelnet.views import ViewFolders
from hmgr_jax.data.shapes3d.store import MODALITIES
from hmgr_jax.errors import UserError


class FiledObjects:
    """The objects ``names`` (``class/object``) of a split, with what is given of them."""

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

    def views(self, number: int) -> int:
        """How many files there are."""
        return len(self._demand(self._views).files(self.names[number]))

    def view(self, number: int, k: int) -> Image.Image:
        """The k-th of them, decoded."""
        return self._demand(self._views).load(self.names[number], k)

    def points(self, number: int) -> np.ndarray:
        """A row of the clouds."""
        found: np.ndarray = self._demand(self._clouds)[number]
        return found

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Read from its file."""
        return read_faces(self._demand(self._meshes)[number])

    @staticmethod
    def _demand(what: Any) -> Any:
        if what is None:
            raise UserError("These objects lack a modality that is asked for: give its folder.")
        return what
