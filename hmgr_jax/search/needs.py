"""Runs that must come first: ``config.needs = {"dxr": "configs/worlds.py:dxr"}``.

The command that trains a run trains them before, in ``WORKDIR/needs/NAME``: ordinary runs, which
go on where they were interrupted and are skipped where they have finished. In place of a recipe
the folder of a run may be named, which is used as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.distributed import hosts
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.training import recipe_file

Train = Callable[[ConfigDict, Path], Any]
"""Trains a configuration in a folder; None where a signal stopped it."""
FOLDER = "needs"
RANDOM = "random"
"""The bank from which captions are drawn at random, without a retriever."""


def train_dependencies(config: ConfigDict, workdir: Path, train: Train) -> bool:
    """Train what the run in ``workdir`` needs; False where a signal stopped that.

    They get the seed and the devices of the run.

    Raises:
        UserError: there is neither a recipe nor a run of that name.
    """
    for name, place in config.needs.items():
        if _is_run(Path(place)):
            continue
        recipe = recipe_file.load(place, {"seed": str(config.seed)})
        own = ConfigDict({**recipe.to_dict(), "parallel": config.parallel.to_dict()}).lock()
        if hosts.first():
            print(f"{config.model.name} needs {name}, {place}, in {workdir / FOLDER / name}.")
        if train(own, workdir / FOLDER / name) is None:
            return False
    return True


def _is_run(place: Path) -> bool:
    return (place / "checkpoints").is_dir()


def folder(config: ConfigDict, workdir: Path, name: str) -> Path:
    """Where the run ``config.needs.NAME`` is."""
    place = Path(config.needs[name])
    return place if _is_run(place) else workdir / FOLDER / name


def retriever(config: ConfigDict, workdir: Path) -> Retriever:
    """The trained run that a system retrieves with, the only one of ``config.needs``.

    Raises:
        UserError: there is none, it has not been trained, or its scores are no inner products.
    """
    if len(config.needs) != 1:
        raise UserError(
            f"{config.model.name} retrieves with one trained run, but config.needs names "
            f"{', '.join(config.needs) or 'none'}: give a recipe or the folder of a run, as "
            "--config.needs.dxr=configs/worlds.py:dxr, or set model.k_train and model.k_test to 0."
        )
    (name,) = config.needs
    where = folder(config, workdir, name)
    if not _is_run(where):
        raise UserError(
            f"{where} holds no trained run: train {config.model.name} with --mode=train, which "
            f"makes {name} first."
        )
    found = Retriever.load(where)
    model = found.model
    if not model.coarse_exact or not {"image", "text"} <= set(model.modalities):
        raise UserError(
            f"{where} holds a {found.config.model.name}, but a retriever finds captions of "
            "pictures by an inner product: take dxr, hmgr, vse or another one of a vector an item."
        )
    return found
