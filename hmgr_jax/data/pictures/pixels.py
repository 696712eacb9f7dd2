"""Pictures as normalised pixels: augmented in training, the centre crop at evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from hmgr_jax.data.draws import PICTURES, Draws
from hmgr_jax.data.pictures.files import load_picture
from hmgr_jax.data.split import Items
from hmgr_jax.errors import UserError

TRAIN = ("crop", "centre")
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
"""Share of the picture that a random crop covers, and width over height of it (Inception's)."""
ERASED_AREA, ERASED_ASPECT = (0.02, 0.33), (0.3, 1 / 0.3)
TRIES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures in 0..1, red, green and blue."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Augmentation:
    """How pictures become pixels float32 [size, size, 3], in training and at evaluation.

    At evaluation the shorter side is scaled to ``resize`` and the centre of ``size`` is kept. In
    training ``train`` says whether the same is done (``"centre"``) or a random part is scaled to
    ``size`` (``"crop"``), ``flip`` is the probability that left and right change places, ``erase``
    that a random rectangle is set to the mean colour (Zhong et al., AAAI 2020).

    Raises ``UserError`` for values out of range.
    """

    size: int = 224
    resize: int = 256
    train: str = "crop"
    flip: float = 0.5
    erase: float = 0.2
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            raise UserError(
                f"data.pixels keeps the middle {self.size} pixels of {self.resize}: size must be "
                "from 1 to resize."
            )
        if self.train not in TRAIN:
            raise UserError(f"data.pixels.train is one of {', '.join(TRAIN)}, not {self.train!r}.")
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"data.pixels.{name} is {getattr(self, name)} where a probability from 0 to 1 "
                    "was expected: correct it."
                )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                f"data.pixels.mean is {self.mean} and std is {self.std} where three numbers each "
                "(red, green, blue; std above 0) were expected: correct them."
            )

    def plain(self, picture: Image.Image) -> np.ndarray:
        """The centre of the picture, as it is evaluated."""
        return self._normalised(self._centre(picture))

    def drawn(self, picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
        """The picture as it is trained on; the same stream gives the same pixels.

        The same numbers are taken from ``rng`` whatever is switched on, so that a switch changes
        nothing but what it names.
        """
        tries, (flip, erase), rectangles = (
            rng.random((TRIES, 4)),
            rng.random(2),
            rng.random((TRIES, 4)),
        )
        if self.train == "crop":
            box = crop_box(*picture.size, tries)
            image = picture.crop(box).resize((self.size, self.size), Image.Resampling.BILINEAR)
        else:
            image = self._centre(picture)
        if flip < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = self._normalised(image)
        if erase < self.erase:
            found = erased_box(self.size, self.size, rectangles)
            if found is not None:
                left, top, right, bottom = found
                pixels[top:bottom, left:right] = 0
        return pixels

    def _centre(self, picture: Image.Image) -> Image.Image:
        width, height = picture.size
        short = min(width, height)
        if short != self.resize:
            scaled = (self.resize * width // short, self.resize * height // short)
            picture = picture.resize(scaled, Image.Resampling.BILINEAR)
        left, top = (round((side - self.size) / 2) for side in picture.size)
        return picture.crop((left, top, left + self.size, top + self.size))

    def _normalised(self, image: Image.Image) -> np.ndarray:
        # Whole rows at once: numpy is several times slower over an inner axis of three.
        mean, std = (
            np.tile(255 * np.array(x, np.float32), self.size) for x in (self.mean, self.std)
        )
        pixels = np.asarray(image).reshape(self.size, -1).astype(np.float32)
        pixels -= mean
        pixels /= std
        return pixels.reshape(self.size, self.size, 3)


def crop_box(width: int, height: int, tries: np.ndarray) -> Box:
    """(left, top, right, bottom) of a random part of a picture.

    Args:
        width: of the picture.
        height: of the picture.
        tries: float [TRIES, 4] in 0..1, numbers for area, aspect and place; the first part that
            fits is taken, and the middle, as wide or high as `ASPECT` allows, where none does.
    """
    box = _first_box(width, height, tries, AREA, ASPECT, whole=True)
    if box is not None:
        return box
    aspect = min(max(width / height, ASPECT[0]), ASPECT[1])
    w = min(width, round(height * aspect))
    h = min(height, round(width / aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def erased_box(width: int, height: int, tries: np.ndarray) -> Box | None:
    """The rectangle to erase, smaller than the picture, or None where none of the tries fits."""
    return _first_box(width, height, tries, ERASED_AREA, ERASED_ASPECT, whole=False)


def _first_box(
    width: int,
    height: int,
    tries: np.ndarray,
    area: tuple[float, float],
    aspect: tuple[float, float],
    *,
    whole: bool,
) -> Box | None:
    low, high = map(math.log, aspect)
    for share, shape, across, down in tries.tolist():
        covered = width * height * (area[0] + share * (area[1] - area[0]))
        ratio = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(covered * ratio)), round(math.sqrt(covered / ratio))
        if 0 < w < width + whole and 0 < h < height + whole:
            left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
            return left, top, left + w, top + h
    return None


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
