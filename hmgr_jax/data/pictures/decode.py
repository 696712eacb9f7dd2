"""Decode picture files of every mode to 8-bit RGB, upright, on a white ground.

Only `FORMATS` are tried, whatever the ending of a file: Pillow decodes some others by starting
another program (Ghostscript for PostScript).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from hmgr_jax.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are read; its plugins decode them in this process."""
READER = 2
"""Changes when a picture or clip gives other pixels than before: neither a cache nor a preparation
that goes on mixes the two."""
UNREAD = (".heic", ".heif")
"""Endings of pictures that cameras write and Pillow does not read."""
MOST_PIXELS = 89_478_485
"""Width times height of the largest picture; Pillow warns above it."""
WHITES: Mapping[str, Sequence[float]] = {"I": (255, 65535), "F": (1, 255, 65535)}
"""{mode without a declared range: usual values of white}."""
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""{orientation in EXIF: what makes the picture upright}."""
LARGEST = 640
"""Pixels of the longer side of a picture that is shown."""


@functools.cache
def formats() -> tuple[str, ...]:
    """The `FORMATS` that this installation of Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def endings() -> frozenset[str]:
    """Endings of the files of `formats`, in lower case."""
    known = Image.registered_extensions()  # loads all formats
    return frozenset(ending for ending, kind in known.items() if kind in formats())


def load_picture(path: Path, near: int | None = None, *, decode: bool = True) -> Image.Image:
    """Decode a picture in RGB, rotated by its EXIF orientation; the first of several frames.

    Args:
        path: the file.
        near: target size of a later reduction; a much larger JPEG is decoded at a fraction of its
            size, which is faster and nearly the same.
        decode: False reads only the header and returns a blank picture.

    Raises:
        UserError: the file is missing, cannot be decoded, or declares more than `MOST_PIXELS`.
    """
    try:
        return decoded(path, near, decode=decode)
    except FileNotFoundError:
        raise UserError(
            f"There is no picture {path}: put it there, or correct the list that names it."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"{path} declares more than {MOST_PIXELS / 1e6:.0f} million pixels, the most that are "
            "read: make it smaller, or remove it."
        ) from None
    except Exception as error:  # Pillow raises nearly every kind for damaged files
        why = why_unread(error)
        if isinstance(error, UnidentifiedImageError) and Path(path).suffix.lower() in UNREAD:
            why += ": export HEIC as JPEG"
        raise UserError(
            f"{path} is not a readable picture ({why}): replace the file or remove it."
        ) from None


def decoded(
    file: Path | IO[bytes],
    near: int | None = None,
    *,
    decode: bool = True,
    most: int = MOST_PIXELS,
) -> Image.Image:
    """`load_picture` of a file or of bytes of at most ``most`` pixels; raises as Pillow does."""
    with Image.open(file, formats=formats()) as image:
        if image.width * image.height > most:
            raise Image.DecompressionBombError(
                f"it has {image.width:,} x {image.height:,} pixels, of at most {most:,}"
            )
        if not decode:
            return Image.new("RGB", (1, 1))
        if near is not None:
            image.draft("RGB", (near, near))
        image.load()
        return to_rgb(_upright(image))


def why_unread(error: Exception) -> str:
    """Why `decoded` failed, for messages."""
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(formats())}"
    return str(error) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    """The loaded picture as its camera was held; damaged EXIF counts as none, as in viewers."""
    try:
        turn = TURNS.get(image.getexif()[ORIENTATION])  # absent in TIFF, which Pillow turned
    except Exception:
        turn = None
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB.

    16 bits of grey are scaled to 8. Other wide numbers are scaled by the least of `WHITES` that
    none exceeds, or else from their least to their greatest. What is transparent shows white.
    """
    if image.mode.startswith("I;16") or image.mode in WHITES:
        return _narrow(image).convert("RGB")
    if image.mode == "LAB":  # which `convert` cannot
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        found = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))
        return found or image  # which is changed in place only if asked
    if image.has_transparency_data:
        if image.mode in ("La", "RGBa"):  # premultiplied
            image = image.convert(image.mode.upper())
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _narrow(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits in 8 bits."""
    values = np.nan_to_num(np.asarray(image, np.float32))
    low, high = float(values.min()), float(values.max())
    white = next((x for x in WHITES.get(image.mode, (65535,)) if high <= x), None)
    black = 0.0
    if low < 0 or white is None:
        black, white = low, (high - low) or 1.0
    pixels = np.rint((values - black) * (255 / white)).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        pixels[values == transparent] = 255
    return Image.fromarray(pixels)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3], at most `LARGEST` pixels wide and high.

    Raises:
        UserError: the file cannot be decoded.
    """
    picture = load_picture(path, near=LARGEST)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)


def read_ahead(
    read: Callable[[T], R], items: Iterable[T], most: int, threads: int = 4
) -> Iterator[R]:
    """``read`` of each item, in order; threads work on at most ``most`` items ahead."""
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[R]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(read, item))
                if len(begun) > most:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
