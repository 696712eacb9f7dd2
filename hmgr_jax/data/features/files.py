"""Named arrays of a feature set, from a .mat, .npz or .h5 file or a folder of such files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hmgr_jax.data.features.array_pickle import read_array_pickle
from hmgr_jax.data.features.layouts import is_nuswide, is_sckr, read_nuswide, read_sckr
from hmgr_jax.data.features.mat import read_mat
from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import Stored, open_arrays, read_npy
from hmgr_jax.files.hdf5 import Dataset, open_hdf5

ENDINGS = (".mat", ".npz", ".h5", ".hdf5", ".npy", ".pkl")
LISTS = {"trainset_txt_img_cat.list": "L_tr", "testset_txt_img_cat.list": "L_te"}
"""Wikipedia's lists of text, image and category, and the names of their labels."""
ADVICE = "copy it again."
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
    if path.suffix == ".pkl":
        return {path.stem: read_array_pickle(path)}
    if path.suffix == ".npy":
        return {path.stem: read_npy(path, ADVICE)}
    if path.suffix == ".npz":
        with open_arrays(path, ADVICE) as arrays:
            return {name: _plain(array) for name, array in arrays.items()}
    return _read_mat(path) if path.suffix == ".mat" else _read_h5(path)


def _plain(array: Stored | Dataset) -> np.ndarray:
    text = isinstance(array, Dataset) and array.text
    return np.asarray(array) if text or array.dtype.kind in "biufUS" else _OBJECTS


def _read_h5(path: Path) -> dict[str, np.ndarray]:
    return {name: _plain(dataset) for name, dataset in open_hdf5(path).walk()}


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
    return {name: _OBJECTS if x is None else x for name, x in read_mat(path).items()}


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
