"""Extracted features in files: ``.npy``, ``.npz`` and HDF5 in common layouts."""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.data.regions.regions import open_features
from hmgr_jax.data.regions.row_arrays import check_zero_padding, clip_boxes, read_boxes, read_counts
from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import computed, read_header
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity
from hmgr_jax.preparation.stores import Store
from hmgr_jax.progress import Progress

ENDINGS = (".npz", ".npy")
IDS = ("ids", "image_ids", "image_id", "img_ids")
FEATURE_NAMES = ("features", "feat", "feats", "x", "arr_0", "att")
BOX_NAMES = ("boxes", "bbox")
WIDTHS, HEIGHTS = ("image_w", "width", "img_w"), ("image_h", "height", "img_h")


class FileStore(Store):
    """``FOLDER/{id}.npz`` or ``.npy``, also in sub-folders; an ``.npz`` may hold boxes.

    The first file determines the size of the features and whether there are boxes.
    """

    def __init__(self, path: Path, array: str | None, *, with_boxes: bool = True) -> None:
        self.path, self.array, self.with_boxes = path, array, with_boxes
        self.files = self.ids = self._find_files()
        if not self.files:
            raise UserError(
                f"{path} holds no .npy or .npz: give a folder with one an image, named by its id."
            )
        first = self.read(next(iter(self.files)))
        self.size = first[FEATURES].shape[1]
        self.has_boxes = BOXES in first

    def _find_files(self) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for file in sorted(self.path.rglob("*")):
            if file.suffix in ENDINGS and file.is_file():
                name = file.relative_to(self.path).with_suffix("").as_posix()
                if files.setdefault(name, file) != file:
                    raise UserError(
                        f"{file} and {files[name].name} are features of the same image: remove one."
                    )
        return files

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """Read from the header of every file."""
        counts = np.zeros(len(ids), np.int64)
        with Progress(len(ids), "files", title="checking", stream=sys.stderr) as bar:
            for i, name in enumerate(ids):
                shapes = _shapes(self.ids[name])
                counts[i] = region_shape(shapes, self._key(shapes), self.where(name))[0]
                bar.advance(1)
        return counts

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features, and boxes if present, of one image."""
        arrays = _arrays(self.ids[name])
        key, where = self._key(arrays), self.where(name)
        return read_regions(arrays, key, where, with_boxes=self.with_boxes)

    def _key(self, arrays: Mapping[str, object]) -> str | None:
        return self.array if len(arrays) > 1 else None


class _Header(NamedTuple):
    """The header of an array."""

    shape: tuple[int, ...]


def _shapes(path: Path) -> dict[str, _Header]:
    """The headers of the arrays of a file by name."""
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
    """The arrays of a file by name, without pickled objects, which bottom-up files also hold."""
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
    """Turn the errors of numpy and zipfile for a bad file into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no .npy or .npz that can be read ({error}): extract it again."
        ) from None


class NpyStore(Store):
    """``FILE.npy`` [rows, R, D] with ``ids``; boxes in ``FILE_boxes.npy`` [rows, R, 4] in 0..1, and
    numbers of true regions in ``FILE_counts.npy`` [rows].

    ``{name}_ims.npy`` and ``_feat.npy`` have ``{name}_boxes.npy`` and, by default, ``_ids.txt``.
    """

    def __init__(self, path: Path, ids: Path | None, *, with_boxes: bool = True) -> None:
        self.path = path
        self.rows = open_features(path)
        self.size = self.rows.shape[2]
        stem = path.stem.removesuffix("_ims").removesuffix("_feat")
        self.ids_file = ids or path.with_name(f"{stem}_ids.txt")
        self.boxes_file = path.with_name(f"{stem}_boxes.npy")
        self.has_boxes = with_boxes and self.boxes_file.is_file()
        self.ids = self._read_ids()
        counts, shape = path.with_name(f"{stem}_counts.npy"), self.rows.shape
        self.counts_file = counts if counts.is_file() else None
        self._counts = read_counts(self.counts_file, (shape[0], shape[1]))

    def _read_ids(self) -> dict[str, int]:
        if not self.ids_file.is_file():
            raise UserError(
                f"{self.ids_file} is missing, so the rows of {self.path} have no ids: give "
                "--ids a file with one id per row."
            )
        lines = read_lines(self.ids_file)
        if len(lines) != len(self.rows):
            raise UserError(
                f"{self.ids_file} has {len(lines)} lines but {self.path} has {len(self.rows)} "
                "rows: there must be one id per row."
            )
        row_of: dict[str, int] = {}
        for row, name in enumerate(lines):
            if row_of.setdefault(name, row) != row:
                raise UserError(
                    f"{self.ids_file}:{row + 1} repeats {name} of line {row_of[name] + 1}: every "
                    "image has one row, so drop the repeats first (hmgr_jax.prepare scan does)."
                )
        return row_of

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """The counts in the file, or all regions of the row."""
        if self._counts is None:
            return np.full(len(ids), self.rows.shape[1])
        return self._counts[[self.ids[name] for name in ids]]

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features, and boxes if present, of one image."""
        row = np.asarray([self.ids[name]])
        found = {FEATURES: self.rows.gather(row)}
        if self.has_boxes:
            shape = (len(self.rows), self.rows.shape[1])
            found[BOXES] = read_boxes([self.boxes_file], row, shape, self._counts)
        if self._counts is not None:
            where = f"{self.where(name)} holds"
            check_zero_padding(found[FEATURES], self._counts[row], lambda _: where)
        count = int(self.regions([name])[0])
        return {end: values[0, :count] for end, values in found.items()}

    def where(self, name: str) -> str:
        """File and row."""
        return f"{self.path}, row {self.ids[name]} ({name}),"

    def identity(self, ids: Sequence[str]) -> str:
        """A digest of all files of the store."""
        more = [self.boxes_file] if self.has_boxes else []
        more += [self.counts_file] if self.counts_file else []
        return identity([self.path, self.ids_file, *more])


class H5Store(Store):
    """An HDF5 file in one of three layouts.

    ``features`` [n, R, D] with ``ids`` [n] (and ``boxes`` in 0..1); a dataset or group per image,
    named by its id; datasets ``{id}_features`` and ``{id}_boxes``. Needs h5py, the extra ``h5``.
    """

    def __init__(self, path: Path, array: str | None, *, with_boxes: bool = True) -> None:
        self.path, self.array, self.with_boxes = path, array, with_boxes
        self._file = _open(path)
        self._columns: dict[str, Any] = {}
        self.ids = self._rows() or self._images()
        if not self.ids:
            raise UserError(
                f"{path} holds neither 'features' with 'ids' nor a dataset an image: convert it."
            )
        first = self.read(next(iter(self.ids)))
        self.size = first[FEATURES].shape[1]
        self.has_boxes = BOXES in first

    def _rows(self) -> dict[str, Any]:
        """{id: row} if one dataset holds all images, else empty."""
        names = next((name for name in IDS if name in self._file), None)
        usual = [self.array] if self.array else [*FEATURE_NAMES]
        key = next((name for name in usual if name in self._file), None)
        if names is None or key is None:
            return {}
        ids = [_text(value) for value in self._file[names][:].tolist()]
        if len(ids) != len(self._file[key]) or len(set(ids)) != len(ids):
            raise UserError(
                f"{self.path} has {len(ids)} {names}, {len(set(ids))} different, for "
                f"{len(self._file[key])} rows of {key}: there must be one id per row."
            )
        self._columns = {"features": self._file[key]}
        for box in ("boxes", "bbox"):
            if box in self._file:
                self._columns["boxes"] = self._file[box]
        return {name: row for row, name in enumerate(ids)}

    def _images(self) -> dict[str, Any]:
        """{id: name of its dataset or group} if every image has its own."""
        found = {}
        for name in self._file:
            if name.endswith(("_boxes", "_bbox", "_cls_prob")):
                continue
            found[name.removesuffix("_features")] = name
        return found

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """Read from the shapes of the datasets."""
        if self._columns:
            return np.full(len(ids), self._columns["features"].shape[1])
        counts = np.zeros(len(ids), np.int64)
        with Progress(len(ids), "datasets", title="checking", stream=sys.stderr) as bar:
            for i, name in enumerate(ids):
                arrays = self._arrays(name)
                counts[i] = region_shape(arrays, self._key(arrays), self.where(name))[0]
                bar.advance(1)
        return counts

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features, and boxes if present, of one image."""
        place, where = self.ids[name], self.where(name)
        try:
            if isinstance(place, int):
                arrays = {key: column[place] for key, column in self._columns.items()}
            else:
                arrays = self._arrays(name)
            return read_regions(arrays, self._key(arrays), where, with_boxes=self.with_boxes)
        except OSError as error:
            raise UserError(f"{where} cannot be read ({error}): copy it again.") from None

    def _arrays(self, name: str) -> dict[str, Any]:
        """The datasets of an image that has its own."""
        place = self.ids[name]
        if hasattr(self._file[place], "keys"):
            return dict(self._file[place].items())
        arrays = {"features": self._file[place]}
        if f"{name}_boxes" in self._file:
            arrays["boxes"] = self._file[f"{name}_boxes"]
        return arrays

    def _key(self, arrays: Mapping[str, Any]) -> str | None:
        return self.array if self.array in arrays else None

    def where(self, name: str) -> str:
        """The file and the place in it."""
        return f"{self.path}, {name},"

    def identity(self, ids: Sequence[str]) -> str:
        """A digest of the file."""
        return identity([self.path])


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{path} needs h5py to be read: install it with pip install 'hmgr-jax[h5]'."
        ) from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} is no HDF5 file that can be read ({error}): copy it again."
        ) from None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def find_features(arrays: Mapping[str, Any], name: str | None, where: str) -> str:
    """The name of the feature array: the requested one, or a common one."""
    if name is not None and name not in arrays:
        raise UserError(
            f"{where} holds {', '.join(arrays) or 'nothing'} but no {name!r}: correct --array."
        )
    usual = [usual for usual in FEATURE_NAMES if usual in arrays]
    if name or usual:
        return name or usual[0]
    two = [key for key in arrays if len(arrays[key].shape) == 2 and arrays[key].shape[1] != 4]
    if len(two) != 1:
        raise UserError(
            f"{where} holds {', '.join(arrays) or 'nothing'}, of which none is clearly the "
            "features [regions, features]: name it with --array."
        )
    return two[0]


def region_shape(arrays: Mapping[str, Any], name: str | None, where: str) -> tuple[int, int]:
    """(R, D) of one image, from the ``shape`` of its features alone."""
    shape = tuple(arrays[find_features(arrays, name, where)].shape)
    if len(shape) != 2 or 0 in shape:
        raise UserError(
            f"{where} holds features of shape {shape} where [regions, features] was expected (of "
            "a video [frames, features]): extract them again."
        )
    return shape[0], shape[1]


def read_regions(
    arrays: Mapping[str, Any], name: str | None, where: str, *, with_boxes: bool
) -> dict[str, np.ndarray]:
    """``{"ims": [R, D], "boxes": float32 [R, 4] in 0..1 where there are any}`` of one image."""
    region_shape(arrays, name, where)
    values = _numbers(arrays[find_features(arrays, name, where)], where)
    found = {FEATURES: values}
    given = next((key for key in BOX_NAMES if key in arrays), None)
    if with_boxes and given:
        found[BOXES] = _boxes(_numbers(arrays[given], where), arrays, len(values), where)
    return found


def _boxes(given: np.ndarray, arrays: Mapping[str, Any], count: int, where: str) -> np.ndarray:
    if given.shape != (count, 4):
        raise UserError(
            f"{where} holds boxes of shape {given.shape} where {(count, 4)} was expected, a box a "
            "region: extract them again, or leave them out with --no-boxes."
        )
    width = next((arrays[key] for key in WIDTHS if key in arrays), None)
    height = next((arrays[key] for key in HEIGHTS if key in arrays), None)
    given = given.astype(np.float64)
    if width is not None and height is not None:
        size = np.asarray([np.asarray(width).item(), np.asarray(height).item()], np.float64)
        if not (size > 0).all():
            raise UserError(f"{where} holds an image size that is not positive: correct it.")
        given = given / np.tile(size, 2)[None]
    return clip_boxes(given[None], lambda _: f"{where} holds")[0]


def _numbers(array: Any, where: str) -> np.ndarray:
    """Read an array; pickled objects, which could run code, are refused."""
    try:
        values = np.asarray(array)
    except ValueError:
        values = np.empty(0, object)
    if values.dtype.kind not in "fiu":
        raise UserError(
            f"{where} holds {values.dtype} where numbers were expected: save it as a plain array."
        )
    return computed(values)
