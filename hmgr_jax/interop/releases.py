"""Which systems have official weights, and what is known of them."""

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
    """Of the model's hyper-parameters: its official names."""
    features: Callable[[Mapping[str, np.ndarray]], Mapping[str, Mapping[str, tuple[int, ...]]]]
    """Of a state_dict: shapes of the items that it was trained on."""
    options: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Mapping[str, Any]]
    """Of the training script's options (as far as the file has them) and a state_dict: what they,
    and the code whatever the options, say about our hyper-parameters."""
    whole: bool = False
    """Names are of the whole state (``params/...``, ``stats/...``), not of parameters alone."""


RELEASES: dict[str, Release] = {
    "imram": Release(imram.names, imram.features, imram.options),
    "pcme": Release(pcme.names, pcme.features, pcme.options, whole=True),
}
"""By the name of the model."""


def as_trained(
    config: ConfigDict, release: Release, weights: Weights, path: Path, given: Collection[str]
) -> ConfigDict:
    """The recipe with the hyper-parameters that the weights of a release were trained with.

    Shapes do not tell a variant or a number of steps. What the command line sets counts more than
    the file, and the file more than the recipe; where they differ, that is said.

    Args:
        config: the recipe, with ``given`` in it.
        release: of its system.
        weights: what ``path`` holds.
        path: names the file in what is said.
        given: keys that the command line sets, such as ``model.steps``.

    Raises:
        UserError: the options in the file are not the script's.
    """
    config = ConfigDict(config.to_dict())
    said = _options(release, weights, path)
    differing = {k: v for k, v in said.items() if config.model.get(k, v) != v}
    kept = {k: v for k, v in differing.items() if f"model.{k}" in given}
    taken = {k: v for k, v in differing.items() if k not in kept}
    if kept:
        warnings.warn(
            f"the command line says {_spelt(config.model, kept)}, but {path} was trained with "
            f"{_spelt(kept, kept)}: the command line counts",
            stacklevel=3,
        )
    if taken:
        recipe = _spelt(config.model, taken)
        print(f"options:   {_spelt(taken, taken)} as {path} was trained, not the recipe's {recipe}")
    with config.ignore_type():
        config.model.update(taken)
    return config.lock()


def _options(release: Release, weights: Weights, path: Path) -> Mapping[str, Any]:
    try:
        return release.options(weights.options, weights.state)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"The options in {path} are not those of the training script ({error}): save its "
            "state_dict alone, and give what differs from the recipe as --config.model.KEY=VALUE."
        ) from None


def _spelt(values: Mapping[str, Any], keys: Collection[str]) -> str:
    return " ".join(f"model.{key}={values[key]}" for key in keys)
