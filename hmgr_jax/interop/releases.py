"""Systems with official weights: names of tensors and options of the training script."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.errors import UserError
from hmgr_jax.interop import imram, pcme
from hmgr_jax.interop.names import Names
from hmgr_jax.interop.state_dict import Weights


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
