"""Named arrays of a feature set, from a .mat, .npz or .h5 file or a folder of such files."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.features.layouts import is_nuswide, is_sckr, read_nuswide, read_sckr
from hmgr_jax.errors import UserError

ENDINGS = (".mat", ".npz", ".h5", ".hdf5", ".npy", ".pkl")
LISTS = {"trainset_txt_img_cat.list": "L_tr", "testset_txt_img_cat.list": "L_te"}
"""Wikipedia's lists of text, image and category, and the names of their labels."""
_OBJECTS = np.empty(0, object)
"""Stands for pickled objects and cell arrays, which are not read."""
_MAT_73 = b"MATLAB 7.3"
_HDF5 = b"\x89HDF"


def read_arrays(root: str | Path) -> tuple[dict[str, np.ndarray], list[Path]]:
    """Read {name: array} of a file or of the files of a folder, and list the files.

    A ``.npy`` or ``.pkl`` is an array named after its file; .mat is read by scipy up to version 7
    and by h5py in version 7.3. An array of objects other than text is not read: an empty one stands
    for it. Wikipedia's ``*set_txt_img_cat.list`` become the labels ``L_tr`` and ``L_te``. Folders
    of NUS-WIDE and SCKR are read by `hmgr_jax.data.features.layouts`.

    Raises:
        UserError: the path is missing, a file is damaged, h5py is not installed, or two files have
            an array of the same name.
    """
    root = Path(root)
    if root.is_file():
        return _read(root), [root]
    if not root.is_dir():
        raise UserError(
            f"There is no {root}: give data.root the file ({', '.join(ENDINGS)}) or the folder of "
            "a feature set."
        )
    if is_nuswide(root):
        return read_nuswide(root)
    if is_sckr(root):
        return read_sckr(root)
    files = sorted(p for p in root.iterdir() if p.suffix in ENDINGS or p.name in LISTS)
    if not files:
        raise UserError(
            f"{root} holds no file that ends in {', '.join(ENDINGS)}: give data.root the folder "
            "of a feature set."
        )
    found: dict[str, np.ndarray] = {}
    origin: dict[str, Path] = {}
    for path in files:
        for name, array in _read(path).items():
            if name in found:
                raise UserError(
                    f"{path} and {origin[name]} both hold an array {name}: give data.root one of "
                    "the files."
                )
            found[name], origin[name] = array, path
    return found, files


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.name in LISTS:
        return {LISTS[path.name]: _read_list(path)}
    readers = {".mat": _read_mat, ".npz": _read_npz, ".npy": _read_npy, ".pkl": _read_pickle}
    try:
        return readers.get(path.suffix, _read_h5)(path)
    except UserError:
        raise
    except Exception as error:  # libraries raise anything for damaged files
        raise UserError(
            f"{path} cannot be read ({str(error)[:120] or type(error).__name__}): it is damaged "
            "or of another format, so copy it again."
        ) from None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            try:
                found[name] = arrays[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                found[name] = _OBJECTS
    return found


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path, allow_pickle=False)}


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    return {path.stem: read_array_pickle(path)}


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        begins = file.read(len(_MAT_73))
    if begins.startswith(_HDF5):
        raise UserError(
            f"{path} is HDF5 without MATLAB's header, so the order of its axes is unknown: name it "
            ".h5 if arrays are [pairs, size]."
        )
    if begins == _MAT_73:  # stored by columns
        return {name: np.ascontiguousarray(x.T) for name, x in _read_h5(path).items()}
    from scipy.io import loadmat

    found = {k: v for k, v in loadmat(path, spmatrix=False).items() if not k.startswith("__")}
    arrays = {k: v for k, v in found.items() if hasattr(v, "dtype")}
    return {k: _OBJECTS if v.dtype == object else _dense(v) for k, v in arrays.items()}


def _dense(array: np.ndarray) -> np.ndarray:
    """Convert a matrix, perhaps a sparse one, to an array."""
    return np.asarray(array.todense()) if hasattr(array, "todense") else np.asarray(array)


def _read_h5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path} needs h5py: install it with pip install 'hmgr-jax[h5]'.") from None
    with h5py.File(path, "r") as file:
        return dict(_datasets(file))


def _datasets(group: Mapping, above: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield arrays, those of groups as ``group/name``; MATLAB's own groups begin with #."""
    import h5py

    for name, item in group.items():
        if isinstance(item, h5py.Group) and not name.startswith("#"):
            yield from _datasets(item, f"{above}{name}/")
        elif isinstance(item, h5py.Dataset) and not name.startswith("#"):
            if h5py.check_string_dtype(item.dtype):
                yield f"{above}{name}", np.asarray(item.asstr()[()], np.str_)
            else:
                yield f"{above}{name}", item[()] if item.dtype.kind in "biuf" else _OBJECTS


def _read_list(path: Path) -> np.ndarray:
    """Category (1 to 10) of every line ``text_id image_id category``."""
    labels = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        words = re.split(r"\s+", line.strip())
        if len(words) != 3 or not words[2].isdigit():
            raise UserError(
                f"{path}:{number} is {line[:60]!r} where a text, an image and a category were "
                "expected: give the list of Wikipedia's release."
            )
        labels.append(int(words[2]))
    return np.array(labels, np.int64)


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_KNOWN = {(module, name) for module in _NUMPY for name in ("_reconstruct", "scalar")}
_KNOWN |= {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}, not an array")
        return super().find_class(module, name)


def read_array_pickle(path: Path) -> np.ndarray:
    """Read the array of a ``.pkl`` of Python 2 or 3, as in ACMR's release, without running code.

    Raises:
        UserError: it holds something else.
    """
    with path.open("rb") as file:
        found = _ArrayUnpickler(file, encoding="latin-1").load()
    array = np.asarray(found)
    if array.dtype == object:
        raise UserError(
            f"{path} holds a {type(found).__name__} where one array of numbers was expected: give "
            "the pickles of ACMR's release, or store the array as .npy."
        )
    return array
