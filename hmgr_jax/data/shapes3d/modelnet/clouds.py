"""Point clouds of ``modelnet40_ply_hdf5_2048`` and ``modelnet10_hdf5_2048``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from hmgr_jax.data.text.captioned import clean_name
from hmgr_jax.errors import UserError
from hmgr_jax.files.hdf5 import Dataset, open_hdf5
from hmgr_jax.files.reading import read_json, readable

_FILE = re.compile(r"(?P<before>.*?)(?P<split>train|test)_?(?P<number>\d+)\.h5")


class Clouds(NamedTuple):
    """Clouds of one split, in the order of the files."""

    points: np.ndarray
    """float32 [n, P, 3]."""
    labels: np.ndarray
    """int64 [n]."""
    names: Sequence[str]
    """``class/object``, empty without a list of names."""


def cloud_files(folder: Path, split: str) -> list[Path]:
    """The .h5 files of ``train`` or ``test``, by number."""
    found = [(m, path) for path in folder.glob("*.h5") if (m := _FILE.fullmatch(path.name))]
    of_split = [(int(m["number"]), path) for m, path in found if m["split"] == split]
    return [path for _, path in sorted(of_split)]


def name_file(path: Path) -> Path | None:
    """Find the list of names beside a file of clouds, such as ``ply_data_train_0_id2file.json``."""
    found = _FILE.fullmatch(path.name)
    assert found is not None  # it is one of `cloud_files`
    stems = (path.stem, f"{found['before']}{found['split']}_{found['number']}")
    named = (path.with_name(f"{stem}_id2file.json") for stem in stems)
    return next((file for file in named if file.is_file()), None)


def read_clouds(folder: Path, split: str) -> Clouds:
    """Read all clouds of a split.

    Raises:
        UserError: h5py is not installed, a file is missing, damaged or holds NaN, or lists of names
            do not agree.
    """
    files = cloud_files(folder, split)
    if not files:
        raise UserError(
            f"{folder} holds no ply_data_{split}0.h5 or {split}0.h5: give the folder of ModelNet's "
            "point clouds as data.objects.clouds."
        )
    parts = [_read(path) for path in files]
    lengths = {part.points.shape[1] for part in parts}
    if len(lengths) > 1:
        raise UserError(
            f"{folder} holds clouds of {sorted(lengths)} points: give clouds of one size."
        )
    return Clouds(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [name for part in parts for name in part.names],
    )


def _read(path: Path) -> Clouds:
    file = open_hdf5(path)
    arrays = [file.get(name) for name in ("data", "label")]
    if not all(isinstance(array, Dataset) for array in arrays):
        raise UserError(f"{path} holds no data and label of clouds: copy it again.")
    with readable(path, "clouds", "copy it again."):
        points = np.asarray(arrays[0], np.float32)
        labels = np.asarray(arrays[1], np.int64).reshape(-1)
    if points.ndim != 3 or points.shape[2] != 3 or len(labels) != len(points):
        raise UserError(
            f"{path} has data {list(points.shape)} and label {list(labels.shape)} where [n, P, 3] "
            "and [n] were expected: copy it again."
        )
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))[0])
        raise UserError(f"{path} row {bad} holds NaN or infinity: copy it again.")
    return Clouds(points, labels, _names(path, len(points)))


def _names(path: Path, count: int) -> list[str]:
    file = name_file(path)
    if file is None:
        return []
    listed = read_json(file, "copy it again.")
    if not isinstance(listed, list):
        raise UserError(f"{file} is not a list of names: copy it again.")
    if len(listed) != count:
        raise UserError(
            f"{file} names {len(listed)} objects but {path.name} has {count} clouds: copy both "
            "again."
        )
    return [str(PurePosixPath(clean_name(name, str(file))).with_suffix("")) for name in listed]
