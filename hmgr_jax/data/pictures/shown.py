"""Picture files behind region features: find one by its id and read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmgr_jax.data.pictures.decode import ENDINGS, load_picture
from hmgr_jax.errors import UserError

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
