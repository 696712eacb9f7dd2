"""Objects of ``hmgr_jax.prepare modelnet``, each in one file.

``objects/class/train/object.npz`` holds the arrays ``points``, ``face`` and ``neighbor_index``, and
the views as PNG files ``view_000.png`` and so on.
"""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hmgr_jax.data.shapes3d.modelnet.files import read_faces
from hmgr_jax.data.shapes3d.sources import MODALITIES
from hmgr_jax.errors import UserError, reason
from hmgr_jax.files.arrays import read_npz
from hmgr_jax.files.reading import check_packed, parse_json, readable

MANIFEST, OBJECTS = "manifest.json", "objects"
AGAIN = "run hmgr_jax.prepare modelnet again."
VIEW = "view_{:03d}.png"


class Manifest(NamedTuple):
    """Objects listed in the manifest."""

    classes: tuple[str, ...]
    names: dict[str, tuple[str, ...]]
    """{split: ``class/object`` of each object}."""
    views: int


def read_manifest(root: Path) -> Manifest | None:
    """Read the manifest of a prepared folder; None if ``root`` is of another kind.

    Raises:
        UserError: the preparation is incomplete, or the manifest is damaged.
    """
    path = root / MANIFEST
    if not path.is_file():
        if (root / OBJECTS).is_dir():
            raise UserError(
                f"{root} was not prepared completely: run the same hmgr_jax.prepare command again "
                "to resume it."
            )
        return None
    try:
        found: dict[str, Any] = parse_json(path.read_text("utf-8"))
        if "objects" not in found:
            return None
        names = {str(s): tuple(map(str, of)) for s, of in found["objects"].items()}
        return Manifest(tuple(map(str, found["classes"])), names, int(found["views"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}): prepare the folder again.") from None


def object_file(root: Path, split: str, name: str) -> Path:
    """File of ``class/object``."""
    kind, _, own = name.partition("/")
    return root / OBJECTS / kind / split / f"{own}.npz"


def write_object(file: io.BufferedIOBase, arrays: dict[str, np.ndarray], views: Iterable) -> None:
    """Write arrays and views (uint8 [S, S]) deterministically, byte for byte."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            # A ZipInfo of its own has a constant time of writing.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue())
        for k, view in enumerate(views):
            buffer = io.BytesIO()
            Image.fromarray(view).save(buffer, format="PNG")
            archive.writestr(zipfile.ZipInfo(VIEW.format(k)), buffer.getvalue())


class PreparedObjects:
    """Objects ``names`` of a split of a prepared folder."""

    def __init__(self, root: Path, split: str, names: Sequence[str], views: int) -> None:
        self.files = tuple(object_file(root, split, name) for name in names)
        self._count = views
        self.modalities = MODALITIES if views else tuple(m for m in MODALITIES if m != "image")

    def __len__(self) -> int:
        return len(self.files)

    def select(self, chosen: np.ndarray) -> PreparedObjects:
        """Select objects by index."""
        found = copy.copy(self)
        found.files = tuple(self.files[i] for i in chosen.tolist())
        return found

    def views(self, number: int) -> int:
        """Number of rendered views."""
        return self._count

    def view(self, number: int, k: int) -> Image.Image:
        """Decode the k-th view."""
        try:
            with Image.open(
                io.BytesIO(self._read(number, VIEW.format(k))), formats=("PNG",)
            ) as image:
                return image.copy()
        except Exception as error:  # Pillow raises nearly every kind for damaged files
            raise UserError(_damaged(self.files[number], error)) from None

    def points(self, number: int) -> np.ndarray:
        """Points on the surface."""
        found = read_npz(self.files[number], AGAIN, ("points",))["points"]
        if found.ndim != 2 or found.shape[1] != 3 or not np.isfinite(found).all():
            raise UserError(_damaged(self.files[number], f"points of shape {found.shape}"))
        return found

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and neighbours of the faces."""
        return read_faces(self.files[number])

    def _read(self, number: int, name: str) -> bytes:
        path = self.files[number]
        with readable(path, "an object", AGAIN), zipfile.ZipFile(path) as archive:
            info = archive.getinfo(name)
            check_packed(info.file_size, info.compress_size, name)
            return archive.read(info)


def _damaged(path: Path, error: object) -> str:
    return f"{path} is not a readable object ({error}): {AGAIN}"
