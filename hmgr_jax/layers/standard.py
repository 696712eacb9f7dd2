"""Features brought to mean 0 and deviation 1 by those of the training items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from hmgr_jax.shapes import Array, Float

BLOCK = 4096
"""Items measured at a time."""
LEAST = 1e-6
"""A feature that varies less is a constant, and only moved."""


def unmeasured(size: int) -> dict[str, Array]:
    """Moments with which features stay as they are."""
    return {"mean": jnp.zeros(size, jnp.float32), "deviation": jnp.ones(size, jnp.float32)}


def measured(source: Any) -> dict[str, Array]:
    """Mean and deviation of the ``features`` [n, D] of all items of a source, added in float64."""
    total = square = np.float64(0.0)
    for stop in range(0, len(source), BLOCK):
        items = np.arange(stop, min(stop + BLOCK, len(source)))
        x = np.asarray(source.gather(items)["features"], np.float64)
        total, square = total + x.sum(axis=0), square + (x**2).sum(axis=0)
    mean = total / len(source)
    deviation = np.sqrt(np.maximum(square / len(source) - mean**2, 0.0))
    deviation = np.where(deviation > LEAST * np.maximum(1.0, np.abs(mean)), deviation, 1.0)
    return {"mean": jnp.float32(mean), "deviation": jnp.float32(deviation)}


def standardised(x: Float[Array, "b D"], moments: Mapping[str, Array]) -> Float[Array, "b D"]:
    """``(x - mean) / deviation``."""
    return (x - moments["mean"][None, :]) / moments["deviation"][None, :]
