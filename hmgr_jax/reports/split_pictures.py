"""The names, captions and pictures of the images (or clips) of a split."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.generated.worlds.render import world_picture
from hmgr_jax.data.pictures.decode import read_picture
from hmgr_jax.data.pictures.files import PictureFolder
from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError


@dataclass(frozen=True)
class SplitPictures:
    """Images of a split by their numbers."""

    data: ConfigDict
    """The options of the data set."""
    split: Split
    folder: PictureFolder | None
    """The folder of the picture files, which are named by the ids; generated worlds need none."""

    def __post_init__(self) -> None:
        if self.data.source == "worlds" and self.folder is not None:
            raise UserError("Generated worlds draw their pictures themselves: leave --images out.")

    def id(self, number: int) -> str:
        """The id of an image."""
        return self.split.ids[self.split.visual][number]

    def file(self, number: int) -> Path | None:
        """The picture file of an image; None if there is none."""
        return self.folder.find_shown(self.id(number)) if self.folder is not None else None

    def picture(self, number: int) -> np.ndarray | None:
        """The picture of an image, uint8 [H, W, 3]; None if there is none.

        Raises:
            UserError: the file cannot be decoded.
        """
        if self.data.source == "worlds":
            return world_picture(self.data, self.split.name, number)
        path = self.file(number)
        return read_picture(path) if path is not None else None

    def warn_if_missing(self, number: int, instead: str) -> None:
        """Warn that an image has no picture; ``instead`` says what is drawn."""
        if self.data.source == "worlds" or self.file(number) is not None:
            return
        why = "without --images FOLDER there is no picture"
        if self.folder is not None:
            why = f"{self.folder.path} holds no {self.id(number)}, with or without an ending"
        warnings.warn(f"{why}: {instead}", RuntimeWarning, stacklevel=3)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All captions of the split."""
        return self.split.sources["text"].captions  # type: ignore[attr-defined, no-any-return]

    def first_caption(self, number: int) -> str:
        """The first caption of an image."""
        return self.sentences[self._first_captions[number]]

    @cached_property
    def _first_captions(self) -> dict[int, int]:
        rows = self.split.rows
        pairs = zip(rows[self.split.visual].tolist(), rows["text"].tolist(), strict=True)
        return dict(reversed(list(pairs)))
