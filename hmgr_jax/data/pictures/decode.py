"""From a file to a picture in memory."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from hmgr_jax.errors import UserError

BROKEN = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,  # a PNG whose chunks are damaged
    Image.DecompressionBombError,
)
"""What Pillow raises for a file that is no whole picture."""
ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def load_picture(path: Path, near: int | None = None, *, decode: bool = True) -> Image.Image:
    """A picture in RGB, turned as it is meant to be seen.

    Args:
        path: the file.
        near: a size to which the picture will be scaled down; a JPEG that is much larger is decoded
            at a fraction of its size, which is faster and nearly the same.
        decode: False looks at the head of the file alone and gives no picture.

    Raises:
        UserError: there is no such file, or it holds no picture that can be read.
    """
    try:
        with Image.open(path) as image:
            if near is not None:
                image.draft("RGB", (near, near))
            if not decode:
                return Image.new("RGB", (1, 1))
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise UserError(
            f"There is no picture {path}: put it there, or correct the list that names it."
        ) from None
    except BROKEN as error:
        raise UserError(
            f"{path} holds no picture that can be read ({error}): replace the file or remove it."
        ) from None
