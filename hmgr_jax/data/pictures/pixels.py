"""Pictures as pixels: decoded, augmented in training, the centre crop at evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from hmgr_jax.data.draws import PICTURES, Draws
from hmgr_jax.data.pictures.augment import Augmentation
from hmgr_jax.data.pictures.decode import load_picture
from hmgr_jax.data.split import Items


class Pictures(Protocol):
    """Decoded pictures by number."""

    def __len__(self) -> int: ...

    def load(self, number: int) -> Image.Image:
        """The picture in RGB; ``UserError`` names one that cannot be read."""
        ...


class PictureFiles:
    """Pictures in files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)

    def __len__(self) -> int:
        return len(self.files)

    def load(self, number: int) -> Image.Image:
        """Decode a file; raises ``UserError`` with its name."""
        return load_picture(self.files[number])


class PixelSource:
    """Items ``{"pixels": float32 [k, S, S, 3]}`` of ``pictures``, normalised.

    `gather` gives the centre crop of evaluation, `draw` what is trained on. Both raise
    ``UserError`` with the file for a picture that cannot be read.
    """

    lengths: np.ndarray | None = None

    def __init__(self, pictures: Pictures, augmentation: Augmentation) -> None:
        self.pictures, self.augmentation = pictures, augmentation

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def item_bytes(self) -> int:
        """Size of one item: batches of pictures are large, so fewer are read ahead."""
        return self.augmentation.size**2 * 3 * 4

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """The middle of every picture, nothing drawn."""
        return self._pixels(items, lambda k, picture: self.augmentation.plain(picture))

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Every picture as the seed, the step and the row say."""
        return self._pixels(
            items,
            lambda k, picture: self.augmentation.drawn(picture, draws.generator(PICTURES, k)),
        )

    def _pixels(self, items: np.ndarray, make: Callable[[int, Image.Image], np.ndarray]) -> Items:
        items = np.asarray(items, np.int64).reshape(-1)
        size = self.augmentation.size
        pixels = np.empty((len(items), size, size, 3), np.float32)
        for k, number in enumerate(items.tolist()):
            pixels[k] = make(k, self.pictures.load(number))
        return {"pixels": pixels}
