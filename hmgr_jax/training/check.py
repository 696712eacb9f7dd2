"""Validation of a configuration, before anything is opened or written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from hmgr_jax.data.features.sets import TESTS
from hmgr_jax.data.pictures.files import CORRUPT
from hmgr_jax.data.regions.regions import ITEMS
from hmgr_jax.distributed.parallel import MAPPERS
from hmgr_jax.errors import UserError
from hmgr_jax.models import unknown_name
from hmgr_jax.models.base import Parts
from hmgr_jax.training.config import flatten, plain
from hmgr_jax.training.optimizer import KINDS, Stage

CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "data.features.test": TESTS,
    "data.visual": tuple(ITEMS),
    "data.batching": ("rows", "groups", "classes"),
    "data.corrupt": CORRUPT,
    "eval.calibration": ("none", "bank"),
    "train.decay": ("step", "steps", "cosine", "none"),
    "train.optimizer": KINDS,
    "parallel.mapper": MAPPERS,
}
AT_LEAST = {
    "seed": 0,
    "data.captions_per_image": 0,
    "data.features.valid": 0,
    "data.max_words": 1,
    "data.threads": 1,
    "data.workers": 0,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.warmup_steps": 0,
    "train.log_steps": 1,
    "train.eval_steps": 0,
    "train.save_steps": 0,
    "train.max_bad_steps": 1,
    "train.hang_seconds": 0,
    "train.clip": 0.0,
    "train.weight_decay": 0.0,
    "eval.batch_size": 1,
    "eval.tile": 1,
    "parallel.devices": 0,
}


def check(config: ConfigDict) -> None:
    """Refuse values out of range.

    Raises:
        UserError: one sentence for the first of them.
    """
    values = flatten(plain(config))
    for key, choices in CHOICES.items():
        if values.get(key, choices[0]) not in choices:  # a run may be older than the key
            raise UserError(f"{key} is one of {', '.join(choices)}, not {values[key]!r}.")
    for key, least in AT_LEAST.items():
        if values.get(key, least) < least:
            raise UserError(f"{key} must be at least {least}, it is {values[key]}: raise it.")
    buckets = config.data.buckets
    if not buckets or not all(isinstance(size, int) and size > 0 for size in buckets):
        raise UserError(f"data.buckets are positive integers such as (16, 24), not {buckets}.")
    if values["train.lr"] <= 0:
        raise UserError(f"train.lr must be positive, it is {values['train.lr']}: raise it.")
    if values["train.weight_decay"] and values["train.optimizer"] not in ("adamw", "sgd"):
        raise UserError(
            f"train.weight_decay is {values['train.weight_decay']}, but train.optimizer "
            f"{values['train.optimizer']} has none: use adamw or sgd, or set it to 0."
        )
    if config.data.get("pieces") and config.data.vocabulary:
        raise UserError(
            f"data.pieces is {config.data.pieces} and data.vocabulary {config.data.vocabulary}, "
            "but captions are read as pieces or as words: leave one of them empty."
        )
    if config.seed >= 2**31:
        raise UserError(f"seed must be below 2147483648, it is {config.seed}: lower it.")
    if not config.eval.protocols or not config.eval.dev_protocols:
        raise UserError("eval.protocols and eval.dev_protocols must name a protocol each: add one.")
    found = len(jax.devices())
    if config.parallel.devices > found:
        raise UserError(
            f"parallel.devices is {config.parallel.devices}, but this machine has {found}: lower "
            "it, or leave it at 0 for all."
        )
    _check_stages(config)


def check_parts(config: ConfigDict, parts: Parts) -> None:
    """Refuse names of parts that the model does not have.

    Raises:
        UserError: with the closest name.
    """
    train = config.train
    named = [("train.frozen", train.frozen), ("train.lr_factors", train.lr_factors)]
    named += [("init", config.init), ("train.unclipped", train.get("unclipped", ()))]
    named += [("train.plain", train.get("plain", ()))]
    for stage in train.stages:
        for key in ("frozen", "lr_factors"):
            named.append((f"{key} of a stage", stage.get(key, ())))
    for key, names in named:
        _check_known(f"part of {config.model.name} in {key}", names, parts)


def check_calibration(config: ConfigDict, modalities: Sequence[str]) -> None:
    """Refuse a calibration of anything but two modalities.

    Raises:
        UserError: names the modalities.
    """
    if config.eval.get("calibration", "none") != "none" and len(modalities) != 2:
        raise UserError(
            f"eval.calibration calibrates the scores of two modalities, {config.model.name} has "
            f"{', '.join(modalities)}: set it to none."
        )


def _check_stages(config: ConfigDict) -> None:
    fields = [field.name for field in dataclasses.fields(Stage) if field.name != "first"]
    for stage in config.train.stages:
        if not isinstance(stage, Mapping | ConfigDict):
            raise UserError(f"train.stages holds dicts with {', '.join(fields)}, not {stage!r}.")
        _check_known("key of a stage", stage, fields)
        steps: Any = stage.get("steps")
        if not isinstance(steps, int) or steps < 1:
            raise UserError(f"a stage needs steps, an integer from 1, it has {steps!r}: give one.")
    before_last = sum(stage["steps"] for stage in config.train.stages[:-1])
    if before_last >= config.train.steps:
        raise UserError(
            f"the stages before the last one have {before_last} steps, but train.steps is "
            f"{config.train.steps}: raise it, or shorten the stages."
        )


def _check_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(unknown_name(what, name, list(known)))
