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
from hmgr_jax.data.pictures.decode import load_picture
from hmgr_jax.data.pictures.preprocessing import FILTERS, Preprocessing, normalise_pixels
from hmgr_jax.data.split import Items
from hmgr_jax.errors import UserError

TRAIN = ("crop", "centre")
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
"""Area share and aspect ratio (width over height) of random crops (Inception)."""
ERASED_AREA, ERASED_ASPECT = (0.02, 0.33), (0.3, 1 / 0.3)
TRIES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet in 0..1: red, green, blue."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Augmentation:
    """Conversion of pictures to pixels float32 [size, size, 3].

    At evaluation the shorter side is scaled to ``resize`` and the centre of ``size`` is cropped; a
    ``resize`` of 0 scales both sides to ``size``. ``resample`` is the number of the filter. In
    training ``train`` is ``"centre"`` (the same) or ``"crop"`` (a random part scaled to ``size``);
    ``flip`` is the probability of a horizontal flip, ``erase`` that of setting a random rectangle
    to the mean colour (Zhong et al., AAAI 2020).

    Raises ``UserError`` for values out of range.
    """

    size: int = 224
    resize: int = 256
    train: str = "crop"
    flip: float = 0.5
    erase: float = 0.2
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    resample: int = 2
    """As in `Preprocessing`; also of random crops."""

    def __post_init__(self) -> None:
        if self.size < 1 or (self.resize and self.size > self.resize):
            raise UserError(
                f"data.pixels.size must be from 1 to data.pixels.resize, but they are {self.size} "
                f"and {self.resize}: correct one of the two."
            )
        if self.resample not in FILTERS:
            raise UserError(
                f"data.pixels.resample must be a number of Pillow's filters, 0 to 5, got "
                f"{self.resample}: 2 is bilinear, 3 bicubic."
            )
        if self.train not in TRAIN:
            raise UserError(f"data.pixels.train is one of {', '.join(TRAIN)}, not {self.train!r}.")
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"data.pixels.{name} must be a probability from 0 to 1, got "
                    f"{getattr(self, name)}: correct it."
                )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                f"data.pixels.mean is {self.mean} and std is {self.std} where three numbers each "
                "(red, green, blue; std above 0) were expected: correct them."
            )

    def plain(self, picture: Image.Image) -> np.ndarray:
        """The centre crop, for evaluation."""
        return self._preprocessing(picture)

    def drawn(self, picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
        """The picture augmented for training; the same stream gives the same pixels.

        The amount drawn from ``rng`` does not depend on the settings, so that one setting changes
        nothing else.
        """
        tries, (flip, erase), rectangles = (
            rng.random((TRIES, 4)),
            rng.random(2),
            rng.random((TRIES, 4)),
        )
        if self.train == "crop":
            box = crop_box(*picture.size, tries)
            size, resample = (self.size, self.size), Image.Resampling(self.resample)
            image = picture.crop(box).resize(size, resample)
        else:
            image = self._preprocessing.crop(picture)
        if flip < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = normalise_pixels(np.asarray(image), self.mean, self.std)
        if erase < self.erase:
            found = erased_box(self.size, self.size, rectangles)
            if found is not None:
                left, top, right, bottom = found
                pixels[top:bottom, left:right] = 0
        return pixels

    @property
    def side(self) -> int:
        """The shorter side of a picture before the crop."""
        return self.resize or self.size

    @property
    def _preprocessing(self) -> Preprocessing:
        return Preprocessing(self.size, self.resize or None, self.resample, self.mean, self.std)


def crop_box(width: int, height: int, tries: np.ndarray) -> Box:
    """Choose a random part (left, top, right, bottom) of a picture.

    Args:
        width: of the picture.
        height: of the picture.
        tries: float [TRIES, 4] in 0..1: area, aspect ratio and place. The first that fits is used;
            if none does, the largest centred part within `ASPECT`.
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
    """Choose the rectangle to erase, smaller than the picture; None if no try fits."""
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
    """Decoded pictures by index."""

    def __len__(self) -> int: ...

    def load(self, number: int) -> Image.Image:
        """Load a picture in RGB; ``UserError`` names an unreadable one."""
        ...


class PictureFiles:
    """Pictures in files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)

    def __len__(self) -> int:
        return len(self.files)

    def load(self, number: int) -> Image.Image:
        """Decode a file."""
        return load_picture(self.files[number])


class PixelSource:
    """Items ``{"pixels": float32 [k, S, S, 3]}`` of ``pictures``, normalised.

    `gather` gives the centre crop for evaluation, `draw` the augmented picture for training. Both
    raise ``UserError`` for a picture that cannot be read.
    """

    lengths: np.ndarray | None = None

    def __init__(self, pictures: Pictures, augmentation: Augmentation) -> None:
        self.pictures, self.augmentation = pictures, augmentation

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def item_bytes(self) -> int:
        """Bytes of one item, by which prefetching is limited."""
        return self.augmentation.size**2 * 3 * 4

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Centre crops."""
        return self._pixels(items, lambda k, picture: self.augmentation.plain(picture))

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Augmented pictures, by the streams of ``draws``."""
        return self._pixels(
            items, lambda k, picture: self.augmentation.drawn(picture, draws.generator(PICTURES, k))
        )

    def _pixels(self, items: np.ndarray, make: Callable[[int, Image.Image], np.ndarray]) -> Items:
        items = np.asarray(items, np.int64).reshape(-1)
        size = self.augmentation.size
        pixels = np.empty((len(items), size, size, 3), np.float32)
        for k, number in enumerate(items.tolist()):
            pixels[k] = make(k, self.pictures.load(number))
        return {"pixels": pixels}
