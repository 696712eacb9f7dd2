"""Meshes in ``.npz`` files, in the two dialects that are about, and in prepared objects."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from hmgr_jax.data.shapes3d.faces import FEATURES
from hmgr_jax.errors import UserError

DIALECTS = (("face", "neighbor_index"), ("faces", "neighbors"))
"""Names of the arrays: of the cross-modal center loss and here; of MeshNet's newer release."""


def find_meshes(folder: Path) -> dict[str, dict[str, Path]]:
    """{split: {``class/object``: file}} of ``class/train/object.npz`` and ``class/test/...``."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*/*/*.npz")):
        kind, split = path.parts[-3], path.parts[-2]
        found.setdefault(split, {})[f"{kind}/{path.stem}"] = path
    return found


def read_faces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [F, 15] and neighbours int32 [F, 3] of a file of either dialect.

    Raises:
        UserError: the file is not there, damaged, of neither dialect, or holds NaN.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = next((pair for pair in DIALECTS if set(pair) <= set(arrays.files)), None)
            if names is None:
                raise UserError(
                    f"{path} holds {', '.join(arrays.files) or 'nothing'} where face and "
                    "neighbor_index, or faces and neighbors, were expected: prepare it again."
                )
            features, neighbours = (arrays[name] for name in names)
    except FileNotFoundError:
        raise UserError(
            f"There is no {path}: put it there, or leave the object out by data.corrupt=skip."
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no .npz that can be read ({error}): copy it again.") from None
    return _checked(path, features, neighbours)


def _checked(
    path: Path, features: np.ndarray, neighbours: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    count = len(features)
    if not count or features.shape != (count, FEATURES) or neighbours.shape != (count, 3):
        raise UserError(
            f"{path} has faces {list(features.shape)} and neighbours {list(neighbours.shape)} "
            f"where [F, {FEATURES}] and [F, 3] were expected: prepare it again."
        )
    if not np.isfinite(features).all():
        raise UserError(f"{path} has a face with NaN or infinity: prepare it again.")
    if neighbours.min() < 0 or neighbours.max() >= count:
        raise UserError(
            f"{path} names neighbour {int(neighbours.max())} where its faces are numbered from 0 "
            f"to {count - 1}: prepare it again."
        )
    return features.astype(np.float32), neighbours.astype(np.int32)
