"""A folder with one ``.npy`` or ``.npz`` an image, named by its id."""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import read_header
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity
from hmgr_jax.preparation.region_arrays import read_regions, region_shape
from hmgr_jax.progress import Progress

ENDINGS = (".npz", ".npy")


class FileStore:
    """``FOLDER/{id}.npz`` or ``.npy``, in subfolders too; an ``.npz`` may hold boxes.

    The first file tells the size of the features and whether there are boxes.
    """

    exact = True
    slow = False

    def __init__(self, path: Path, array: str | None, *, with_boxes: bool = True) -> None:
        self.path, self.array, self.with_boxes = path, array, with_boxes
        self.files: dict[str, Path] = {}
        for file in sorted(path.rglob("*")):
            if file.suffix in ENDINGS and file.is_file():
                self._add(file)
        if not self.files:
            raise UserError(
                f"{path} holds no .npy or .npz: give a folder with one an image, named by its id."
            )
        first = self.read(next(iter(self.files)))
        self.size = first[FEATURES].shape[1]
        self.has_boxes = BOXES in first

    def _add(self, file: Path) -> None:
        name = file.relative_to(self.path).with_suffix("").as_posix()
        if name in self.files:
            raise UserError(
                f"{file} and {self.files[name].name} are features of the same image: remove one."
            )
        self.files[name] = file

    @property
    def ids(self) -> Mapping[str, Path]:
        """{id: file}."""
        return self.files

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """From the first bytes of every file."""
        counts = np.zeros(len(ids), np.int64)
        with Progress(len(ids), "files", title="checking", stream=sys.stderr) as bar:
            for i, name in enumerate(ids):
                shapes = _shapes(self.files[name])
                counts[i] = region_shape(shapes, self._key(shapes), self.where(name))[0]
                bar.advance(1)
        return counts

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features, and boxes where there are any, of one image."""
        arrays = _arrays(self.files[name])
        key, where = self._key(arrays), self.where(name)
        return read_regions(arrays, key, where, with_boxes=self.with_boxes)

    def _key(self, arrays: Mapping[str, object]) -> str | None:
        return self.array if len(arrays) > 1 else None

    def where(self, name: str) -> str:
        """The file."""
        return str(self.files[name])

    def identity(self, ids: Sequence[str]) -> str:
        """Of the files that are read."""
        return identity(self.files[name] for name in ids)


class _Header(NamedTuple):
    """What a file says of an array before its numbers."""

    shape: tuple[int, ...]


def _shapes(path: Path) -> dict[str, _Header]:
    """The arrays of a file by name, like `_arrays`, but only their shapes."""
    with _readable(path):
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return {"features": _Header(read_header(file)[0])}
        shapes = {}
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    shape, _, dtype = read_header(member)
                if not dtype.hasobject:
                    shapes[name.removesuffix(".npy")] = _Header(shape)
        return shapes


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, but for pickled objects, which bottom-up's files hold too."""
    with _readable(path), path.open("rb") as file:  # numpy leaves a bad file open
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            return {"features": found}
        arrays = {}
        for name in found.files:
            with contextlib.suppress(ValueError):
                arrays[name] = found[name]
        return arrays


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What numpy and zipfile raise of a bad file is one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no .npy or .npz that can be read ({error}): extract it again."
        ) from None
