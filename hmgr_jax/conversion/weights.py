"""Convert between a file of weights and the folder of a run, for ``hmgr_jax.convert``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.conversion import run_folder
from hmgr_jax.conversion.run_folder import Meta, Saved
from hmgr_jax.data.pictures.pca import ARRAYS, Pca
from hmgr_jax.data.text.pieces import vocabulary_from_json
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.trained_run import saved_config, saved_model, state_shapes
from hmgr_jax.files.reading import parse_json
from hmgr_jax.interop import imram, pcme, state_dict
from hmgr_jax.interop import names as naming
from hmgr_jax.interop.names import Names
from hmgr_jax.interop.picture_encoder import DESCRIBED
from hmgr_jax.interop.state_dict import Weights
from hmgr_jax.shapes import Tree
from hmgr_jax.training import config as configs
from hmgr_jax.training import recipe_file
from hmgr_jax.training.check import check

OFFICIAL, OWN = "official", "own"
"""The kind of names in an exported file."""
PCA = "encoder_pca/"
"""Prefix of the names of a PCA's arrays."""


@dataclass(frozen=True)
class Release:
    """The official PyTorch code of a system."""

    names: Callable[[Mapping[str, Any]], Names]
    """(hyper-parameters) -> official names."""
    features: Callable[[Mapping[str, np.ndarray]], Mapping[str, Mapping[str, tuple[int, ...]]]]
    """(state_dict) -> shapes of the items that it was trained on."""
    options: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Mapping[str, Any]]
    """(options of the training script in the file, state_dict) -> our hyper-parameters."""
    whole: bool = False
    """Whether names are those of the whole state (``params/...``, ``stats/...``)."""


RELEASES: dict[str, Release] = {
    "imram": Release(imram.names, imram.features, imram.options),
    "pcme": Release(pcme.names, pcme.features, pcme.options, whole=True),
}
"""{name of the model: its release}."""


def as_trained(
    config: ConfigDict, release: Release, weights: Weights, path: Path, given: Collection[str]
) -> ConfigDict:
    """The recipe with the hyper-parameters that the weights of a release were trained with.

    The command line overrides the file, and the file overrides the recipe; differences are printed.

    Args:
        config: the recipe, with ``given`` in it.
        release: of its system.
        weights: the content of ``path``.
        path: the file, for messages.
        given: keys set on the command line, such as ``model.steps``.

    Raises:
        UserError: the options in the file are not those of the training script.
    """
    config = ConfigDict(config.to_dict())
    try:
        trained = release.options(weights.options, weights.state)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"The options in {path} are not those of the training script ({error}): save its "
            "state_dict alone, and give differences from the recipe as --config.model.KEY=VALUE."
        ) from None
    differing = {k: v for k, v in trained.items() if config.model.get(k, v) != v}
    kept = {k: v for k, v in differing.items() if f"model.{k}" in given}
    changed = {k: v for k, v in differing.items() if k not in kept}
    if kept:
        warnings.warn(
            f"the command line sets {_format(config.model, kept)}, but {path} was trained with "
            f"{_format(kept, kept)}: the command line is used",
            stacklevel=3,
        )
    if changed:
        recipe = _format(config.model, changed)
        print(f"options:   {_format(changed, changed)} as in {path}, not the recipe's {recipe}")
    with config.ignore_type():
        config.model.update(changed)
    return config.lock()


def _format(values: Mapping[str, Any], keys: Collection[str]) -> str:
    return " ".join(f"model.{key}={values[key]}" for key in keys)


def export_weights(workdir: Path, out: Path) -> None:
    """Write the best step of a run as safetensors, with the metadata of a run folder.

    Parameters have their official names if the system has a release with all of them; otherwise,
    like statistics and memory, their paths (``params/image/...``).

    Raises:
        UserError: no complete checkpoint, or ``out`` exists.
    """
    state_dict.check_free(out)
    saved = run_folder.read(workdir)
    kind = OFFICIAL if _official(saved.meta, saved.state) is not None else OWN
    names = _names(kind, saved.meta, saved.state)
    state = naming.from_params(names, saved.state)
    vocabulary = saved.vocabulary  # words are written in SCAN's layout
    words = vocabulary.to_scan() if vocabulary.whole_words else vocabulary.saved()
    about = {k: v for k, v in saved.meta.items() if k not in ("config", "vocabulary")}
    pca = {} if saved.pca is None else dict(zip(ARRAYS, saved.pca.arrays, strict=True))
    metadata = {
        "names": kind,
        "config": json.dumps(saved.meta["config"]),
        "vocabulary": json.dumps(words, ensure_ascii=False),
        "about": json.dumps(about | {"step": saved.step}),
        "encoder": json.dumps(saved.encoder),
    }
    state_dict.write(out, {**state, **{f"{PCA}{n}": x for n, x in pca.items()}}, metadata)
    whose = "their official names" if kind == OFFICIAL else "our own names"
    print(
        f"exported:  step {saved.step} of {workdir}, {len(state)} tensors under {whose}, to {out}"
    )
    _print_names("left out:", naming.unused(names, saved.state))


def import_weights(
    path: Path,
    workdir: Path,
    *,
    config: ConfigDict | None = None,
    overrides: Mapping[str, str | None] | None = None,
    vocabulary: Path | None = None,
    model: str | None = None,
) -> None:
    """Make the run folder ``workdir`` from a file of weights, ready to be evaluated.

    Args:
        path: see ``state_dict.read_weights``.
        workdir: a new folder.
        config: the recipe, with ``overrides`` in it; by default that of an exported file. Options
            of the official training script in the file override it.
        overrides: set on the command line; they override everything.
        vocabulary: SCAN's JSON file; by default the one in the metadata.
        model: the system whose official names the file has; by default that of the recipe.

    Raises:
        UserError: ``workdir`` exists, weights do not fit, or there is no recipe or vocabulary.
    """
    run_folder.check_new_folder(workdir)
    weights = state_dict.read_weights(path)
    exported = _exported(weights, path)
    if config is None:
        config = _exported_config(exported, overrides or {}, path)
    name = config.model.name
    if model is not None and model != name:
        raise UserError(
            f"--model is {model}, but the recipe is for {name}: give the recipe as FILE:{model}."
        )
    if not exported:
        config = as_trained(config, _release(name), weights, path, overrides or {})
    check(config)
    words = _words(vocabulary, exported, path)
    saved, unused = _fitted(weights, exported, config, words)
    run_folder.write(workdir, saved)
    print(f"imported:  {len(weights.state)} tensors of {path} as {name} into {workdir}")
    _print_names("unused:", unused)
    run_folder.print_next(workdir)


def _fitted(
    weights: Weights, exported: Meta | None, config: ConfigDict, vocabulary: Vocabulary
) -> tuple[Saved, list[str]]:
    """The weights as the state of a model, and the names of unused weights."""
    meta: Meta = {
        "steps_per_epoch": 1,
        "fingerprint": "imported weights",
        **(exported or {"features": _release(config.model.name).features(weights.state)}),
        "config": configs.plain(config),
        "vocabulary": vocabulary.saved(),
    }
    step, encoder = int(meta.pop("step", 0)), meta.pop("encoder", None)
    template = state_shapes(saved_model(meta))
    names = _names(weights.metadata["names"] if exported else OFFICIAL, meta, template)
    # Nothing depends on the number of calls of PyTorch's norms.
    given = {
        n: x
        for n, x in weights.state.items()
        if not n.endswith("num_batches_tracked") and not n.startswith(PCA)
    }
    state = naming.to_params(names, given, template)
    arrays = [weights.state[f"{PCA}{n}"] for n in ARRAYS if f"{PCA}{n}" in weights.state]
    unused = [n for n in naming.unused(names, template) if n in weights.state]
    return Saved(state, meta, step, encoder, Pca(*arrays) if arrays else None), unused


def _names(kind: str, meta: Meta, state: Tree) -> Names:
    """Names of a whole state; only releases with ``whole`` name other leaves than parameters."""
    if kind == OWN:
        return naming.our_own(state)
    release = _release(meta["config"]["model"]["name"])
    official = release.names(saved_model(meta).hyperparameters())
    if not release.whole:
        official = naming.within(official, "params")
    known = {path for entry in official for path in entry.paths}
    others = naming.our_own({key: value for key, value in state.items() if key != "params"})
    return [*official, *(entry for entry in others if not known.issuperset(entry.paths))]


def _official(meta: Meta, state: Tree) -> Names | None:
    """Official names of a state; None unless the release has all parameters."""
    if meta["config"]["model"]["name"] not in RELEASES:
        return None
    names = _names(OFFICIAL, meta, state)
    return names if naming.covers(names, state) else None


def _release(name: str) -> Release:
    if name not in RELEASES:
        raise UserError(
            f"There are no official names for {name}, only for {', '.join(RELEASES)}: give "
            "weights that export wrote, or another --model."
        )
    return RELEASES[name]


def _exported(weights: Weights, path: Path) -> Meta | None:
    """The metadata that ``export_weights`` wrote; None for another file."""
    if "about" not in weights.metadata:
        return None
    try:
        texts = weights.metadata
        if texts["names"] not in (OFFICIAL, OWN):
            raise ValueError(texts["names"])
        words = parse_json(texts["vocabulary"])
        if "word2idx" in words:
            words = Vocabulary.from_scan(words, f"the vocabulary in {path}").saved()
        about, config = parse_json(texts["about"]), parse_json(texts["config"])
        encoder = parse_json(texts.get("encoder", "null"))
        if encoder is not None and not {"place", *DESCRIBED} <= encoder.keys():
            raise ValueError("its encoder of pictures is not described")
        for group in ("model", "data", "train", "eval", "parallel"):
            config[group].items()
        return {
            "config": config,
            "vocabulary": vocabulary_from_json(words).saved(),
            "features": {m: dict(inputs) for m, inputs in about["features"].items()},
            "steps_per_epoch": int(about["steps_per_epoch"]),
            "fingerprint": str(about["fingerprint"]),
            "step": int(about["step"]),
            "classes": int(about.get("classes", 0)),
            "encoder": encoder,
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"The metadata of {path} is not what export writes ({type(error).__name__}: {error}): "
            "export it again."
        ) from None


def _exported_config(
    exported: Meta | None, overrides: Mapping[str, str | None], path: Path
) -> ConfigDict:
    if exported is None:
        raise UserError(
            f"{path} does not hold its recipe: give the recipe, such as --config "
            "configs/f30k.py:imram."
        )
    config = saved_config(exported)
    for key, text in overrides.items():
        recipe_file.override(config, key, text)
    return config


def _words(given: Path | None, exported: Meta | None, path: Path) -> Vocabulary:
    if given is not None:
        return Vocabulary.load(given)
    if exported is None:
        raise UserError(
            f"{path} holds no vocabulary: give the JSON file that the weights were trained with, "
            "as --vocabulary FILE."
        )
    return vocabulary_from_json(exported["vocabulary"])


def _print_names(what: str, names: list[str]) -> None:
    if names:
        print(f"{what:10s} {', '.join(names)} (this variant of the model has no place for them)")
