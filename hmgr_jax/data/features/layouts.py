"""Feature sets in the folders of their releases: NUS-WIDE and SCKR.

NUS-WIDE follows the description of the data (Chua et al., CIVR 2009); it has been tested on
generated files only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import read_npy
from hmgr_jax.files.reading import readable

FEATURES = "Low_Level_Features"
TAGS = "NUS_WID_Tags"
LABELS = "Groundtruth/TrainTestLabels"
NUSWIDE_ROLES = {"Train": "tr", "Test": "te"}


def is_nuswide(root: Path) -> bool:
    """Whether a folder has the layout of NUS-WIDE."""
    return (root / FEATURES).is_dir() and (root / TAGS).is_dir()


def read_nuswide(root: Path) -> tuple[dict[str, np.ndarray], list[Path]]:
    """Read ``I_tr``, ``T_tr``, ``L_tr`` and the same of ``te``, and list the files.

    Images are all ``Low_Level_Features/Train_*.dat`` side by side, sorted by name; texts
    ``Train_Tags1k.dat``; labels one column per file ``Labels_CONCEPT_Train.txt``, sorted by name.

    Raises:
        UserError: a part is missing, or files differ in rows.
    """
    found: dict[str, np.ndarray] = {}
    files: list[Path] = []
    for name, role in NUSWIDE_ROLES.items():
        for key, pattern in (
            (f"I_{role}", f"{FEATURES}/{name}_*.dat"),
            (f"T_{role}", f"{TAGS}/{name}_Tags1k.dat"),
            (f"L_{role}", f"{LABELS}/Labels_*_{name}.txt"),
        ):
            paths = sorted(root.glob(pattern))
            if not paths:
                raise UserError(
                    f"{root} holds no {pattern}: unpack that part of NUS-WIDE there, or give "
                    "data.root one file of features."
                )
            found[key] = _side_by_side(paths)
            files += paths
    return found, files


def _side_by_side(paths: list[Path]) -> np.ndarray:
    """Concatenate the columns of text files of numbers, float32 [rows, columns]."""
    parts: list[np.ndarray] = []
    for path in paths:
        with readable(path, "a table of numbers", "unpack it again."):
            parts.append(np.loadtxt(path, np.float32, ndmin=2))
        if len(parts[-1]) != len(parts[0]):
            raise UserError(
                f"{path} has {len(parts[-1])} rows but {paths[0]} has {len(parts[0])}: unpack both "
                "again."
            )
    return np.concatenate(parts, axis=1)


SIDES = {"image": "I", "text": "T"}
SCKR_ROLES = {"train": "tr", "valid": "vl", "test": "te"}


def is_sckr(root: Path) -> bool:
    """Whether a folder holds the train lists of SCKR."""
    return all((root / f"{side}_train.txt").is_file() for side in SIDES)


def read_sckr(root: Path) -> tuple[dict[str, np.ndarray], list[Path]]:
    """Read ``I_tr``, ``T_tr``, ``L_tr`` and the same of ``vl`` and ``te``, and list the files.

    ``image_train.txt`` and ``text_train.txt`` (and of valid and test) name one ``.npy`` a line in
    the folders ``image`` and ``text``; line i of both is a pair. Files are called
    SERIES_NUMBER_LABEL.

    Raises:
        UserError: a list or a file is missing, a name has no label, or labels of a pair differ.
    """
    found: dict[str, np.ndarray] = {}
    files: list[Path] = []
    for role, short in SCKR_ROLES.items():
        lists = {side: root / f"{side}_{role}.txt" for side in SIDES}
        if role == "valid" and not any(path.is_file() for path in lists.values()):
            continue
        labels = {}
        for side, letter in SIDES.items():
            paths = [_item(root / side, line, lists[side]) for line in read_lines(lists[side])]
            labels[side] = [_label(path) for path in paths]
            found[f"{letter}_{short}"] = np.stack([_load(path) for path in paths])
            files += [lists[side], *paths]
        if labels["image"] != labels["text"]:
            raise UserError(
                f"{lists['image']} and {lists['text']} pair items of different labels: line i of "
                "both must be of one class."
            )
        found[f"L_{short}"] = np.array(labels["image"], np.int64)
    return found, files


def _item(folder: Path, line: str, of: Path) -> Path:
    path = folder / (line if line.endswith(".npy") else f"{line}.npy")
    if not path.is_file():
        raise UserError(f"{of} names {line}, but there is no {path}: add it or correct the list.")
    return path


def _label(path: Path) -> int:
    label = path.stem.rpartition("_")[2]
    if not label.isdigit():
        raise UserError(f"{path} is not named SERIES_NUMBER_LABEL.npy: rename it.")
    return int(label)


def _load(path: Path) -> np.ndarray:
    found = read_npy(path, "copy it again.")
    with readable(path, "numbers", "copy it again."):
        return found.astype(np.float32)
