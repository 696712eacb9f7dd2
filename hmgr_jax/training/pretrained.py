"""A CNN that starts from published weights: ``config.init = {"cnn": "resnet50.pth"}``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError
from hmgr_jax.interop.resnet import read_backbone
from hmgr_jax.models.base import Model
from hmgr_jax.shapes import Tree
from hmgr_jax.training.leaves import leaf_at, with_leaf

PART = "cnn"
ENDINGS = (".pth", ".pt", ".tar", ".safetensors", ".npz")
"""How names of files of weights end; runs are folders and have no such names."""


def runs_and_files(init: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """``config.init`` in two: parts that start from runs, and those that start from files.

    Raises:
        UserError: there is no such file where it is plain that one was meant. What else is not
            there is left to whoever looks for the run.
    """
    files = {part: place for part, place in init.items() if Path(place).is_file()}
    runs = {part: place for part, place in init.items() if part not in files}
    for part, place in runs.items():
        if place and (part == PART or place.endswith(ENDINGS)) and not Path(place).is_dir():
            raise UserError(
                f"init.{part} is {place}, but there is no such file of weights: correct the path."
            )
    return runs, files


def pretrained(
    model: Model, params: Tree, stats: Tree, files: Mapping[str, str]
) -> tuple[Tree, Tree]:
    """``params`` and ``stats`` with the CNN's taken from a file of torchvision's or timm's weights.

    Args:
        model: its part ``cnn`` is where the network is, its field ``cnn`` which one it is.
        params: freshly drawn parameters.
        stats: fresh running statistics.
        files: {part: file}.

    Raises:
        UserError: a file for another part, no file of weights, or those of another network than
            ``model.cnn``.
    """
    for part, file in files.items():
        if part != PART:
            raise UserError(
                f"init.{part} is {file}, a file, but only the cnn starts from one: give the "
                "--workdir of a trained run."
            )
        (path,) = model.parts()[PART]
        kind: Any = getattr(model, PART)
        found = read_backbone(file, kind, leaf_at(params, path), leaf_at(stats, path))
        params = with_leaf(params, path, found["params"])
        stats = with_leaf(stats, path, found["stats"])
    return params, stats


def untrained(model: Model, init: Mapping[str, str]) -> str:
    """A sentence about a CNN that starts from nothing; empty where none does."""
    if PART not in model.parts() or init.get(PART):
        return ""
    return (
        f"The {getattr(model, PART)} starts from random weights: init.cnn may name a .pth or "
        ".safetensors file of torchvision's or timm's."
    )
