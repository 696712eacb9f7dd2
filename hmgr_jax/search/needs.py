"""Runs that a run depends on: ``config.needs = {"dxr": "configs/worlds.py:dxr"}``.

The command that trains a run first trains its dependencies in ``WORKDIR/needs/NAME``. They are
ordinary runs: interrupted ones are resumed and finished ones are skipped. Instead of a recipe,
``config.needs`` may name the folder of a trained run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.distributed import hosts
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.training import recipe_file

Train = Callable[[ConfigDict, Path], Any]
"""Trains a configuration in a folder; None if a signal stopped it."""
FOLDER = "needs"
RANDOM = "random"
"""Name of the bank of random captions, which needs no retriever."""


def train_dependencies(config: ConfigDict, workdir: Path, train: Train) -> bool:
    """Train the dependencies of the run in ``workdir``; False if a signal stopped training.

    Dependencies use the seed and the devices of the run.

    Raises:
        UserError: a dependency is neither a recipe nor a run.
    """
    for name, place in config.needs.items():
        if _is_run(Path(place)):
            continue
        recipe = recipe_file.load(place, {"seed": str(config.seed)})
        own = ConfigDict({**recipe.to_dict(), "parallel": config.parallel.to_dict()}).lock()
        if hosts.is_first():
            print(f"{config.model.name} needs {name}, {place}, in {workdir / FOLDER / name}.")
        if train(own, workdir / FOLDER / name) is None:
            return False
    return True


def _is_run(place: Path) -> bool:
    return (place / "checkpoints").is_dir()


def folder(config: ConfigDict, workdir: Path, name: str) -> Path:
    """The folder of the run ``config.needs.NAME``."""
    place = Path(config.needs[name])
    return place if _is_run(place) else workdir / FOLDER / name


def retriever_digest(config: ConfigDict, workdir: Path) -> str | None:
    """Hex digits that change when the retriever of a run is trained again; None without digests."""
    places = [folder(config, workdir, name) for name in config.needs]
    files = [file for place in places for file in sorted((place / "digests").glob("*.json"))]
    if not files:
        return None
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def load_retriever(config: ConfigDict, workdir: Path) -> Retriever:
    """Load the retriever of a run, the only entry of ``config.needs``.

    Raises:
        UserError: there is none, it is not trained, or its scores are not inner products.
    """
    if len(config.needs) != 1:
        raise UserError(
            f"{config.model.name} needs one retriever, but config.needs names "
            f"{', '.join(config.needs) or 'none'}: give a recipe or the folder of a run, such as "
            "--config.needs.dxr=configs/worlds.py:dxr, or set model.k_train and model.k_test to 0."
        )
    (name,) = config.needs
    where = folder(config, workdir, name)
    if not _is_run(where):
        raise UserError(
            f"{where} holds no trained run: train {config.model.name} with --mode=train, which "
            f"trains {name} first."
        )
    found = Retriever.load(where)
    model = found.model
    if not model.coarse_exact or not {"image", "text"} <= set(model.modalities):
        raise UserError(
            f"{where} holds a {found.config.model.name}, but a retriever must find captions of "
            "pictures by inner product: use a system with one vector per item, such as dxr, hmgr "
            "or vse."
        )
    return found
