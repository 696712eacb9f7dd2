"""Pictures of items that were found: files, or drawn anew where the data are generated."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from hmgr_jax.data.generated.worlds.render import world_picture
from hmgr_jax.data.pictures.files import read_picture
from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.reports.object_pictures import pictures_of
from hmgr_jax.search.index import Item

OBJECTS = ("solids", "modelnet")
PIXELS = 160


class ItemPictures:
    """Pictures of the items of a run; None where there is none to show."""

    def __init__(self, retriever: Retriever, role: str) -> None:
        self._retriever, self._role = retriever, role
        self._source = retriever.config.data.source

    @cached_property
    def _split(self) -> Split:
        return self._retriever.open((self._role,)).splits[self._role]

    def of(self, modality: str, items: Sequence[Item]) -> list[np.ndarray | None]:
        """Pictures uint8 [H, W, 3] of items of a modality; of a caption, what it describes.

        A file that is gone, or no longer a picture, is told in a warning and left out.
        """
        return [self._one(modality, item) for item in items]

    def _one(self, modality: str, item: Item) -> np.ndarray | None:
        if item.picture:
            return _from_file(item)
        if not self._role or not item.owner:
            return None
        if self._source == "worlds":
            role, _, scene = item.owner.rpartition("/")
            return world_picture(self._retriever.config.data, role, int(scene))
        if self._source in OBJECTS:
            split = self._split
            number = list(split.ids[modality]).index(item.id)
            return pictures_of(modality, split.sources[modality], np.array([number]), PIXELS)[0]
        return None


def gone(item: Item) -> bool:
    """Whether the item names the file of a picture that is there no longer."""
    return bool(item.picture) and not Path(item.picture).is_file()


def _from_file(item: Item) -> np.ndarray | None:
    try:
        return read_picture(Path(item.picture))
    except UserError as error:
        warnings.warn(
            f"the picture of {item.id} is left out: {error} Build the index again without it, or "
            "put it back.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
