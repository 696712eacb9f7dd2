"""Pictures for the page: uploads that are bounded, and small copies of the index's own, cached."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from hmgr_jax.data.pictures.decode import decoded, load_picture, why_unread
from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import cache_folder, replacing
from hmgr_jax.search.followed import stamp_of
from hmgr_jax.search.index import Item

THUMBNAIL, PICTURE = 320, 1600
"""Pixels of the longer side."""
QUALITY = 85
FRAME_MS = 350
"""Milliseconds of a frame of a clip, or of a view of a 3D object."""
MOST_BYTES = 1 << 30
"""Largest size of the cache; when the server starts, the oldest files above it are removed."""


def decode(content: bytes, pixels: int) -> Image.Image:
    """An uploaded picture in RGB, see `decoded`.

    Raises:
        UserError: it is no picture, or has more than ``pixels`` pixels, which are not decoded.
    """
    try:
        return decoded(io.BytesIO(content), most=pixels)
    except Exception as error:  # Pillow raises nearly every kind
        raise UserError(
            f"The upload is not a readable picture ({why_unread(error)}): send another."
        ) from None


class Pictures:
    """Copies of pictures as JPEG, at two sizes; any number of threads may call it."""

    def __init__(
        self,
        drawn: Callable[[Item], np.ndarray | None],
        frames: Callable[[Item], np.ndarray | None] = lambda item: None,
        folder: Path | None = None,
    ) -> None:
        self._drawn, self._frames = drawn, frames
        self._folder = folder or cache_folder() / "thumbnails"
        self._lock = threading.Lock()

    def moving(self, item: Item) -> bytes | None:
        """An animated WebP of an item that has frames; None of others."""
        with self._lock:
            frames = self._frames(item)
        if frames is None:
            return None
        first, *others = [Image.fromarray(frame) for frame in frames]
        out = io.BytesIO()
        how = {"duration": FRAME_MS, "loop": 0, "quality": QUALITY}
        first.save(out, "WEBP", save_all=True, append_images=others, **how)
        return out.getvalue()

    def jpeg(self, item: Item, side: int) -> bytes:
        """A copy of the picture of an item.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        if not item.picture:
            with self._lock:  # it may open a split
                picture = self._drawn(item)
            if picture is None:
                raise UserError(f"{item.id} has no picture.")
            return _coded(Image.fromarray(picture), side)
        path = Path(item.picture)
        if not path.is_file():
            raise UserError(f"The picture of {item.id} is gone: run search update.")
        text = f"{path}\0{stamp_of(path)}\0{side}"
        key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        file = self._folder / key[:2] / f"{key}.jpg"
        try:
            return file.read_bytes()
        except OSError:
            made = _coded(load_picture(path, near=side), side)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as opened:
            opened.write(made)
        return made

    def prune(self) -> None:
        """Remove the oldest copies above `MOST_BYTES`."""
        files = [(path.stat(), path) for path in self._folder.glob("*/*.jpg")]
        total = sum(about.st_size for about, _ in files)
        for about, path in sorted(files, key=lambda each: each[0].st_mtime):
            if total <= MOST_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= about.st_size


def _coded(picture: Image.Image, side: int) -> bytes:
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
