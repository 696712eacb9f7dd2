"""Initialise parts from published weights: a CNN from a file, BERT from a folder.

``config.init = {"cnn": "resnet50.pth", "bert": "bert-base-uncased"}``; ``all-minilm-l6-v2`` stands
for the folder of the installed package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.errors import UserError
from hmgr_jax.interop import bert, minilm
from hmgr_jax.interop.resnet import read_backbone
from hmgr_jax.leaves import leaf_at, with_leaf
from hmgr_jax.models.base import Model
from hmgr_jax.shapes import Tree

CNN, BERT = "cnn", "bert"
PARTS = (CNN, BERT)
ENDINGS = (".pth", ".pt", ".tar", ".safetensors", ".npz")
"""Endings of weight files, by which a missing file is told from a run's folder."""


def fit_to_bert(config: ConfigDict, given: Collection[str] = ()) -> None:
    """Set the sizes and WordPieces of the folder that ``init.bert`` names.

    Sets ``model.bert_*``, ``model.vocabulary_size``, ``model.text`` and ``data.pieces``, except for
    the keys in ``given``. Nothing changes if ``init.bert`` is empty or names a run. The name
    `minilm.NAME` is replaced by the folder of the installed package.

    Raises:
        UserError: the folder is not that of a BERT, or the package is not installed.
    """
    folder = config.init.get(BERT, "")
    if folder == minilm.NAME and not Path(folder).is_dir():
        folder = config.init[BERT] = str(minilm.installed())
    if not folder or not bert.is_folder(folder) or "bert_layers" not in config.model:
        return
    sizes = dataclasses.asdict(bert.read_sizes(folder))
    wanted: dict[str, Any] = {"model.vocabulary_size": sizes.pop("vocabulary")}
    wanted |= {f"model.bert_{name}": value for name, value in sizes.items()}
    wanted |= {"data.pieces": str(folder)}
    if "text" in config.model:
        wanted["model.text"] = "bert"
    for key in wanted.keys() - {*given}:
        group, _, name = key.partition(".")
        config[group][name] = wanted[key]


def runs_and_files(init: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split ``config.init`` into parts initialised from runs and parts from weight files.

    Raises `UserError` for a missing weight file; a missing run is reported when it is read.
    """
    files = {
        part: place
        for part, place in init.items()
        if Path(place).is_file() or (part == BERT and place and bert.is_folder(place))
    }
    runs = {part: place for part, place in init.items() if part not in files}
    for part, place in runs.items():
        if place and (part == CNN or place.endswith(ENDINGS)) and not Path(place).is_dir():
            raise UserError(
                f"init.{part} names {place}, but there is no such weight file: correct the path."
            )
    return runs, files


def pretrained(
    model: Model, params: Tree, stats: Tree, files: Mapping[str, str]
) -> tuple[Tree, Tree]:
    """Replace random ``params`` and ``stats`` by published weights.

    Args:
        model: its part ``cnn`` holds a ResNet of the kind in its field ``cnn``; its part ``bert``
            holds BERT.
        params: freshly drawn parameters.
        stats: fresh running statistics.
        files: {part: file of torchvision's or timm's weights, or folder of Hugging Face's}.

    Raises:
        UserError: a file for another part, no file of weights, or those of another network than
            the model has.
    """
    for part, file in files.items():
        if part not in PARTS:
            raise UserError(
                f"init.{part} names the file {file}, but only cnn and bert start from files: give "
                "the --workdir of a trained run."
            )
        (path,) = model.parts()[part]
        own = leaf_at(params, path)
        if part == BERT:
            params = with_leaf(params, path, bert.read_bert(file, own))
            continue
        kind: Any = getattr(model, CNN)
        found = read_backbone(file, kind, own, leaf_at(stats, path))
        params = with_leaf(params, path, found["params"])
        stats = with_leaf(stats, path, found["stats"])
    return params, stats


def untrained(model: Model, init: Mapping[str, str]) -> str:
    """A sentence for each network that starts from random weights; empty if there is none."""
    found = []
    if CNN in model.parts() and not init.get(CNN):
        found.append(
            f"The {getattr(model, CNN)} starts from random weights: init.cnn may name a .pth or "
            ".safetensors file of torchvision's or timm's."
        )
    if BERT in model.parts() and not init.get(BERT):
        found.append(
            f"BERT starts from random weights: init.bert may be {minilm.NAME}, or a folder of "
            "Hugging Face's with config.json, vocab.txt and model.safetensors."
        )
    return " ".join(found)
