"""Which systems have official weights, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmgr_jax.interop import imram, pcme_release
from hmgr_jax.interop.names import Names


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
    "pcme": Release(pcme_release.names, pcme_release.features, pcme_release.options, whole=True),
}
"""By the name of the model."""
