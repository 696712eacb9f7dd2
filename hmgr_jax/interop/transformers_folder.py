"""Folders as transformers saves a model: JSON settings, and weights in one file or in shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import read_object
from hmgr_jax.interop.state_dict import read

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights; the first one found, whole or in shards, is read."""
INDEX = ".index.json"
"""Ending of the file that names the shard of each tensor."""


MOST_LAYERS, MOST = 1000, 10**7
"""Most layers, and largest other size, of a network."""
MOST_PARAMETERS = 2 * 10**10


def positive(config: Mapping[str, Any], key: str) -> int:
    """A size in a ``config.json``; raises `ValueError` unless it is a positive, possible one."""
    value, most = config[key], MOST_LAYERS if key == "num_hidden_layers" else MOST
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{key} is {value!r:.40}, no positive integer up to {most:,}")
    return value


def check_parameters(words: int, width: int, layers: int, intermediate: int) -> None:
    """Raise `ValueError` for a transformer that no machine holds."""
    count = words * width + layers * (4 * width * width + 2 * width * intermediate)
    if count > MOST_PARAMETERS:
        raise ValueError(f"it describes {count:,} parameters")


def is_folder(place: str | Path) -> bool:
    """Whether ``place`` is a folder with a ``config.json``, but not a run folder."""
    return Path(place, CONFIG).is_file() and not Path(place, "checkpoints").is_dir()


def read_state(folder: str | Path, advice: str) -> tuple[Path, dict[str, np.ndarray]]:
    """The file of weights, or the index of shards, and all arrays by official name.

    Raises:
        UserError: there are no weights (the message ends with ``advice``), a shard is missing, or a
            file is damaged.
    """
    path, files = weight_files(folder, advice)
    state: dict[str, np.ndarray] = {}
    for file in files:
        state |= read(file)
    return path, state


def weight_files(folder: str | Path, advice: str) -> tuple[Path, list[Path]]:
    """The file of weights, or the index of shards, and the files that hold tensors.

    Raises `UserError` as `read_state`.
    """
    for name in WEIGHTS:
        path, index = Path(folder, name), Path(folder, f"{name}{INDEX}")
        if path.is_file():
            return path, [path]
        if index.is_file():
            return index, _shards(index)
    raise UserError(f"{folder} lacks {WEIGHTS[0]}: {advice}")


def _shards(index: Path) -> list[Path]:
    places = read_object(index, "get the file again.").get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in places.values()
    ):
        raise UserError(f"{index} has no weight_map of tensors to file names: get it again.")
    files = sorted(set(places.values()))
    missing = [file for file in files if not index.with_name(file).is_file()]
    if missing:
        raise UserError(
            f"{index} names {len(files)} shards, of which {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing: put every shard beside it."
        )
    return [index.with_name(file) for file in files]
