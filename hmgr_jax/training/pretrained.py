"""Initialise parts from published weights: a CNN from a file, BERT and CLIP from folders.

``config.init = {"cnn": "resnet50.pth", "bert": "bert-base-uncased", "clip": "clip-vit-base"}``.
``all-minilm-l6-v2`` as ``bert`` stands for the folder of the installed package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.data.text.tokenizer_file import TokenizerFile
from hmgr_jax.errors import UserError
from hmgr_jax.interop import bert, clip, clip_inputs, clip_weights, minilm
from hmgr_jax.interop.resnet import read_backbone
from hmgr_jax.interop.transformers_folder import is_folder
from hmgr_jax.leaves import leaf_at, with_leaf
from hmgr_jax.models.base import Model
from hmgr_jax.shapes import Tree

CNN, BERT, CLIP = "cnn", "bert", "clip"
PARTS = (CNN, BERT, CLIP)
ENDINGS = (".pth", ".pt", ".tar", ".safetensors", ".npz")
"""Endings of weight files, by which a missing file is told from a run's folder."""


def fit_to_folders(config: ConfigDict, given: Collection[str] = ()) -> None:
    """Set the sizes and the tokens of the folders that ``init.bert`` and ``init.clip`` name.

    Sets ``model.bert_*`` or ``model.clip_*``, ``model.vocabulary_size``, ``model.text`` and
    ``data.pieces``; for CLIP also the lengths of captions, and for the system ``clip`` the sizes of
    pictures, ``data.pixels`` and the objective. Keys in ``given`` keep their values, and nothing
    changes for a part that starts from a run.

    Raises:
        UserError: a folder is not that of a BERT, or of a CLIP or SigLIP; or the package of
            `minilm.NAME`, which is replaced by its folder, is not installed.
    """
    if config.init.get(BERT, "") == minilm.NAME and not Path(minilm.NAME).is_dir():
        config.init[BERT] = str(minilm.installed())
    wanted: dict[str, Any] = {}
    for part, fitted in ((BERT, _of_bert), (CLIP, _of_clip)):
        folder = config.init.get(part, "")
        if folder and is_folder(folder) and f"{part}_layers" in config.model:
            wanted |= fitted(config, folder)
            if "text" in config.model:
                wanted["model.text"] = part
    for key in wanted.keys() - {*given}:
        group, _, name = key.rpartition(".")
        attrgetter(group)(config)[name] = wanted[key]


def _of_bert(config: ConfigDict, folder: str) -> dict[str, Any]:
    sizes = dataclasses.asdict(bert.read_sizes(folder))
    wanted: dict[str, Any] = {"model.vocabulary_size": sizes.pop("vocabulary")}
    wanted |= {f"model.bert_{name}": value for name, value in sizes.items()}
    return wanted | {"data.pieces": folder}


def _of_clip(config: ConfigDict, folder: str) -> dict[str, Any]:
    towers = clip.read_towers(folder)
    words = clip_inputs.read_tokenizer(folder, towers)
    options, pixels = clip.text_options(towers, words), {}
    if config.model.name == CLIP:
        options |= clip.picture_options(towers)
        process = clip_inputs.read_preprocessing(folder, towers)
        pixels = {**dataclasses.asdict(process), "resize": process.resize or 0}
    shorter = {size for size in config.data.buckets if size < words.length}
    return {
        **{f"model.{name}": value for name, value in options.items()},
        **{f"data.pixels.{name}": value for name, value in pixels.items()},
        "data.pieces": folder,
        "data.max_words": words.length - words.num_ends,
        "data.buckets": tuple(sorted(shorter | {words.length})),
    }


def read_tokens(data: ConfigDict) -> TokenizerFile | None:
    """The tokenizer of the folder of a CLIP or SigLIP that ``data.pieces`` names; else None."""
    folder = data.get("pieces")
    if not folder or not clip.is_towers(folder):
        return None
    return clip_inputs.read_tokenizer(folder, clip.read_towers(folder))


def runs_and_files(init: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split ``config.init`` into parts initialised from runs and parts from weight files.

    Raises `UserError` for a missing weight file; a missing run is reported when it is read.
    """
    files = {
        part: place
        for part, place in init.items()
        if Path(place).is_file() or (part in (BERT, CLIP) and place and is_folder(place))
    }
    runs = {part: place for part, place in init.items() if part not in files}
    for part, place in runs.items():
        if part in (BERT, CLIP) and place and not Path(place, "checkpoints").is_dir():
            raise UserError(
                f"init.{part} names {place}, which holds neither a config.json nor the checkpoints "
                "of a run: correct the path."
            )
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
        model: its part ``cnn`` holds a ResNet of the kind in its field ``cnn``, its parts ``bert``
            and ``clip`` the networks of that name.
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
                f"init.{part} names the file {file}, but only {', '.join(PARTS)} start from files: "
                "give the --workdir of a trained run."
            )
        if part == CLIP:
            params = clip_weights.with_towers(params, file)
            continue
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
    if CLIP in model.parts() and not init.get(CLIP):
        found.append(
            "The Transformers start from random weights: init.clip may name a folder of a CLIP or "
            "SigLIP as transformers saves it."
        )
    return " ".join(found)
