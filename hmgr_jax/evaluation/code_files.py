"""The codes of a split in the folder of a run: vectors, their ids, and what they were made of."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import read_object
from hmgr_jax.files.workdir import replacing, write_npy
from hmgr_jax.shapes import Float

FINGERPRINT = "data_fingerprint"


def paths(folder: Path, split: str, modality: str) -> tuple[Path, Path]:
    """The files of vectors and of ids."""
    return folder / f"{split}_{modality}.npy", folder / f"{split}_{modality}_ids.txt"


def check_same_data(
    folder: Path, split: str, ids: Mapping[str, Sequence[str]], fingerprint: str
) -> None:
    """Check that codes which would be replaced are of the same data, before the work.

    Without a record, as older versions and a killed command leave them, their ids are compared.

    Raises:
        UserError: they are of other data, or their record is damaged.
    """
    record, advice = _record(folder, split), f"move {folder} away, or encode in a copy of the run."
    if record.is_file():
        same = read_object(record, advice).get(FINGERPRINT) == fingerprint
    else:
        kept = ((paths(folder, split, m)[1], _lines(names)) for m, names in ids.items())
        same = all(not path.is_file() or path.read_bytes() == text for path, text in kept)
    if not same:
        raise UserError(
            f"{folder} holds codes of the {split} of other data, which would be replaced: {advice}"
        )


def write_codes(
    folder: Path,
    split: str,
    vectors: Mapping[str, Float[np.ndarray, "n E"]],
    ids: Mapping[str, Sequence[str]],
    about: Mapping[str, Any],
) -> None:
    """Write all files of a split; if one cannot be written, none is replaced.

    The record ``SPLIT.json`` is removed before the first file is replaced and is written last.

    Args:
        folder: made if absent.
        split: its name.
        vectors: {modality: of its items}.
        ids: {modality: of its items, in the same order}.
        about: the record, with `FINGERPRINT`.
    """
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as files:  # files are replaced in the reverse of their order here

        def add(path: Path, content: bytes | np.ndarray) -> None:
            file = files.enter_context(replacing(path))
            file.write(content) if isinstance(content, bytes) else write_npy(file, content)
            file.flush()
            os.fsync(file.fileno())  # a full disk is noticed before anything is replaced

        add(_record(folder, split), json.dumps(dict(about), indent=2).encode())
        for modality, rows in vectors.items():
            path, names = paths(folder, split, modality)
            add(names, _lines(ids[modality]))
            add(path, rows)
        _record(folder, split).unlink(missing_ok=True)


def _record(folder: Path, split: str) -> Path:
    return folder / f"{split}.json"


def _lines(names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()
