"""Files of pictures: find the file that a list names, check it, decode it."""

from __future__ import annotations

import functools
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hmgr_jax.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
BROKEN = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,  # a PNG whose chunks are damaged
    RuntimeError,  # a truncated AVIF
    Image.DecompressionBombError,
)
"""Exceptions of Pillow for damaged files."""
STUBS = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow identifies and does not decode."""
ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def load_picture(path: Path, near: int | None = None, *, decode: bool = True) -> Image.Image:
    """Decode a picture in RGB, rotated by its EXIF orientation.

    Args:
        path: the file.
        near: target size of a later reduction; a much larger JPEG is decoded at a fraction of its
            size, which is faster and nearly the same.
        decode: False reads only the header and returns a blank picture.

    Raises:
        UserError: the file is missing or cannot be decoded.
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
            f"{path} is not a readable picture ({error}): replace the file or remove it."
        ) from None


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


CORRUPT = ("refuse", "skip")
CHECK_BELOW = 20_000
"""Up to this number of pictures, headers are read when a split is opened."""
NAMED = 10  # pictures in a warning
GLANCE = 32  # pixels; decoding at this size reads all bytes at little cost


def pictures_below(folder: Path) -> list[Path]:
    """Pictures in a folder and its subfolders, links followed, sorted by name.

    Files and folders whose names begin with a point are left out.
    """
    found, seen = [], set()
    for place, below, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        found += [
            Path(place, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in _pillow_endings()
        ]
    return sorted(found)


@functools.cache
def _pillow_endings() -> frozenset[str]:
    """Endings of the formats that Pillow decodes, in lower case."""
    known = Image.registered_extensions()  # loads all formats
    return frozenset(e for e, kind in known.items() if kind in Image.OPEN and kind not in STUBS)


class PictureFolder:
    """A folder of pictures, perhaps in subfolders; ``UserError`` if it does not exist."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UserError(
                f"{path} is not a folder: give data.pictures the folder of the pictures, absolute "
                "or relative to data.root."
            )
        self.path = path

    def find(self, name: str) -> Path | None:
        """Find the file called ``name``, which may lack its ending; None if there is none.

        ``name`` is relative to the folder or to any subfolder. A name with folders is also found in
        the folder itself (all pictures in one place), but in no other subfolder. Raises
        ``UserError`` if several files match.
        """
        direct, wanted = self.path / name, PurePosixPath(name).parts
        if direct.is_file():
            return direct
        found = [file for file in self._by_name.get(wanted[-1], ()) if self._fits(file, wanted)]
        if len(found) > 1:
            raise UserError(
                f"{name} may be {found[0]} or {found[1]}: name pictures with their folders, or "
                "give data.pictures one folder of them."
            )
        return found[0] if found else None

    def _fits(self, file: Path, wanted: tuple[str, ...]) -> bool:
        parts = file.relative_to(self.path).parent.parts
        folders = wanted[:-1]
        return not parts or parts[len(parts) - len(folders) :] == folders

    @functools.cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """{file name with and without its ending: pictures}."""
        found: dict[str, list[Path]] = {}
        for folder, below, names in os.walk(self.path):
            below.sort()
            for name in sorted(names):
                if name.endswith(ENDINGS):
                    for key in (name, PurePosixPath(name).stem):
                        found.setdefault(key, []).append(Path(folder, name))
        return found


def readable(
    named: Sequence[tuple[str, Path | None, str]], policy: str, split: str, threads: int = 2
) -> list[Path | None]:
    """List the files of pictures; None for those that are left out.

    Under ``"refuse"`` a missing picture and, in sets up to `CHECK_BELOW`, an unreadable header is
    an error at once; other damage is found when the file is read. Under ``"skip"`` every file is
    decoded once; missing and damaged ones are left out with a warning, the same in every process.

    Args:
        named: (name, file or None if missing, where it is listed).
        policy: of `CORRUPT`.
        split: for messages.
        threads: that decode.

    Raises:
        UserError: a picture is missing or unreadable, or none is left.
    """
    missing = [(name, where) for name, file, where in named if file is None]
    if policy == "refuse":
        if missing:
            name, where = missing[0]
            raise UserError(
                f"{where} names {name}, but there is no such picture ({len(missing)} of the "
                f"{len(named)} of {split} are missing): put it there, correct data.pictures, or "
                "leave out what is missing by data.corrupt=skip."
            )
        if len(named) > CHECK_BELOW:
            return [file for _, file, _ in named]
    with ThreadPoolExecutor(threads) as pool:
        errors = list(pool.map(lambda named: _error(named[1], decode=policy == "skip"), named))
    first = next((error for error in errors if error), None)
    if policy == "refuse" and first:
        raise UserError(first.rstrip(".") + ", or leave such pictures out by data.corrupt=skip.")
    kept = [None if error else file for error, (_, file, _) in zip(errors, named, strict=True)]
    left_out = [name for (name, _, _), error in zip(named, errors, strict=True) if error]
    _warn_left_out(left_out, len(named), split)
    return kept


def _warn_left_out(left_out: Sequence[str], total: int, split: str) -> None:
    if len(left_out) == total:
        raise UserError(
            f"None of the {total} pictures of {split} can be read: correct data.pictures, or copy "
            "them again."
        )
    if left_out:
        warnings.warn(
            f"{len(left_out)} of {total} pictures of {split} are missing or cannot be read and are "
            f"left out with their captions: {first_names(left_out)}",
            RuntimeWarning,
            stacklevel=2,
        )


def first_names(names: Sequence[str]) -> str:
    """The first `NAMED` names, for messages."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _error(file: Path | None, *, decode: bool) -> str:
    """Error message of reading a picture or its header, empty if there is none."""
    if file is None:
        return "missing"
    try:
        load_picture(file, near=GLANCE, decode=decode)
    except UserError as error:
        return str(error)
    return ""


LARGEST = 640
"""Pixels of the longer side of a picture that is shown."""


def find_picture(folder: Path, name: str) -> Path | None:
    """Find the picture of an id, with or without an ending, in ``folder``; None if there is none.

    Raises:
        UserError: the folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(
            f"--images names {folder}, which is not a folder: give the folder of the pictures."
        )
    stem = str(Path(name).with_suffix("")) if name.lower().endswith(ENDINGS) else name
    named = [folder / name, *(folder / f"{stem}{ending}" for ending in ("", *ENDINGS))]
    return next((path for path in named if path.is_file()), None)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3], at most `LARGEST` pixels wide and high.

    Raises:
        UserError: the file cannot be decoded.
    """
    picture = load_picture(path, near=LARGEST)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)
