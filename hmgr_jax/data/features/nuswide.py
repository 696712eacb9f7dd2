"""NUS-WIDE in the folders of its release: low-level features, tags, and labels by concept.

After the description of the data (Chua et al., CIVR 2009); read of generated files only, as the
release itself was not at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmgr_jax.errors import UserError

FEATURES = "Low_Level_Features"
TAGS = "NUS_WID_Tags"
LABELS = "Groundtruth/TrainTestLabels"
ROLES = {"Train": "tr", "Test": "te"}


def is_nuswide(root: Path) -> bool:
    """Whether a folder is laid out as the release."""
    return (root / FEATURES).is_dir() and (root / TAGS).is_dir()


def read_nuswide(root: Path) -> tuple[dict[str, np.ndarray], list[Path]]:
    """``I_tr``, ``T_tr``, ``L_tr`` and the same of ``te``, and the files.

    Images are all ``Low_Level_Features/Train_*.dat`` side by side, in the order of their names;
    texts ``Train_Tags1k.dat``; labels one column a file of ``Labels_CONCEPT_Train.txt``, by name.

    Raises:
        UserError: a part is missing, or files differ in rows.
    """
    found: dict[str, np.ndarray] = {}
    files: list[Path] = []
    for name, role in ROLES.items():
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
    """The columns of text files of numbers, float32 [rows, columns]."""
    parts: list[np.ndarray] = []
    for path in paths:
        try:
            parts.append(np.loadtxt(path, np.float32, ndmin=2))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no table of numbers ({error}): unpack it again.") from None
        if len(parts[-1]) != len(parts[0]):
            raise UserError(
                f"{path} has {len(parts[-1])} rows but {paths[0]} has {len(parts[0])}: unpack both "
                "again."
            )
    return np.concatenate(parts, axis=1)
