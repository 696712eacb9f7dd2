"""Files of pictures: find the file that a list names, check it, decode it."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
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


CORRUPT = ("refuse", "skip")
CHECK_BELOW = 20_000
"""Of so many pictures the heads are read when a split is opened; of more, each when it is used."""
NAMED = 10
GLANCE = 32  # pixels: all bytes are read, next to nothing is computed


class PictureFolder:
    """A folder with pictures, perhaps in subfolders.

    Raises ``UserError`` where there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UserError(
                f"{path} is no folder: give data.pictures that of the pictures, as a whole or from "
                "data.root on."
            )
        self.path = path

    def find(self, name: str) -> Path | None:
        """The file called ``name``, which may lack its ending; None where there is none.

        It lies where ``name`` says, from the folder or any of its subfolders on. A name with
        folders is also found in the folder itself (all pictures in one place), never in another
        subfolder: that would be another picture. Raises ``UserError`` where several files fit.
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
        """Pictures by file name, and by file name without its ending."""
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
    """The files of pictures; None for those that are left out.

    Under ``"refuse"`` a missing picture and, of sets below `CHECK_BELOW`, a file without a
    picture's head is an error at once; what else is wrong with a file is found when it is read.
    Under ``"skip"`` every file is decoded once, and those that are missing or damaged are left
    out, counted and named by a warning. A split so made is the same in every process and run.

    Args:
        named: (name, file or None where there is none, where it is listed).
        policy: of `CORRUPT`.
        split: for people.
        threads: that decode.

    Raises:
        UserError: the first picture that is missing or cannot be read, or none is left.
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
    look = _head if policy == "refuse" else _whole
    with ThreadPoolExecutor(threads) as pool:
        wrong = list(pool.map(look, [file for _, file, _ in named]))
    if policy == "refuse":
        _refuse_first(wrong)
    kept = [None if bad else file for bad, (_, file, _) in zip(wrong, named, strict=True)]
    _tell([name for (name, _, _), bad in zip(named, wrong, strict=True) if bad], len(named), split)
    return kept


def _refuse_first(wrong: Sequence[str]) -> None:
    found = next((sentence for sentence in wrong if sentence), None)
    if found:
        raise UserError(found.rstrip(".") + ", or leave such pictures out by data.corrupt=skip.")


def _tell(left_out: Sequence[str], total: int, split: str) -> None:
    if len(left_out) == total:
        raise UserError(
            f"None of the {total} pictures of {split} can be read: correct data.pictures, or copy "
            "them again."
        )
    if left_out:
        some = ", ".join(left_out[:NAMED]) + (", ..." if len(left_out) > NAMED else "")
        warnings.warn(
            f"{len(left_out)} of {total} pictures of {split} are missing or cannot be read and are "
            f"left out with their captions: {some}",
            RuntimeWarning,
            stacklevel=2,
        )


def _head(file: Path | None) -> str:
    """What is wrong with the beginning of a file, empty where nothing is."""
    return _wrong(file, decode=False)


def _whole(file: Path | None) -> str:
    return _wrong(file, decode=True)


def _wrong(file: Path | None, *, decode: bool) -> str:
    if file is None:
        return "missing"
    try:
        load_picture(file, near=GLANCE, decode=decode)
    except UserError as error:
        return str(error)
    return ""


LARGEST = 640
"""Pixels of the longer side; a larger picture is scaled down."""


def find_picture(folder: Path, name: str) -> Path | None:
    """The file of ``folder`` that holds the picture of that id, with or without an ending.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"--images names {folder}, which is no folder: give that of the pictures.")
    stem = str(Path(name).with_suffix("")) if name.lower().endswith(ENDINGS) else name
    named = [folder / name, *(folder / f"{stem}{ending}" for ending in ("", *ENDINGS))]
    return next((path for path in named if path.is_file()), None)


def read_picture(path: Path) -> np.ndarray:
    """A picture as uint8 [H, W, 3], at most `LARGEST` pixels wide and high.

    Raises:
        UserError: the file holds no picture that can be read.
    """
    picture = load_picture(path, near=LARGEST)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)
