"""Arrays of a program as items of a model, checked against its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hmgr_jax.data.split import Items
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.files.npy_rows import computed
from hmgr_jax.models.base import Feature

COUNTS = {"n_regions": "regions", "n_frames": "frames"}
"""{input: the input whose true rows it counts}."""


class Arrays:
    """A source of the arrays in ``items``, each [n, ...], checked against the inputs of a model.

    Integers become int32 and float64 becomes float32. ``n_regions`` (``n_frames``) may be left out
    if every image (clip) uses all regions (frames). Raises ``UserError`` for an input that is
    missing or of another shape, ``FoundNonFinite`` for NaN and infinity.
    """

    lengths: np.ndarray | None = None

    def __init__(
        self, items: Mapping[str, np.ndarray], modality: str, inputs: Mapping[str, Feature]
    ) -> None:
        found = {name: _narrow(name, value) for name, value in items.items()}
        counts = {len(value) if value.ndim else 0 for value in found.values()}
        if len(counts) != 1 or 0 in counts:
            shapes = {name: list(value.shape) for name, value in found.items()}
            raise UserError(f"Arrays of {modality} items must have one length, got {shapes}.")
        self._count = counts.pop()
        for name, of in COUNTS.items():
            if name in inputs and name not in found and of in found:
                found[name] = np.full(self._count, found[of].shape[1:2] or 0, np.int32)
        for name, feature in inputs.items():
            if name in found or not feature.optional:
                _check_array(found, name, (self._count, *feature.shape), modality)
        self._items = found

    def __len__(self) -> int:
        return self._count

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """The rows ``items`` of every array."""
        return {name: value[items] for name, value in self._items.items()}


def _narrow(name: str, given: Any) -> np.ndarray:
    """Convert integers to int32 and floats to at most float32."""
    try:
        value = np.asarray(given)
    except ValueError:  # rows of different lengths
        value = np.empty(0, object)
    if value.dtype.kind not in "biuf":
        raise UserError(f"{name} must be an array of numbers, got {value.dtype}: convert it.")
    if value.dtype.kind not in "iu":
        return computed(value)
    narrow = value.astype(np.int32)
    if (narrow != value).any():
        first = value[narrow != value].flat[0]
        raise UserError(f"{name} holds the integer {first}, which does not fit int32: correct it.")
    return narrow


def _check_array(
    found: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, ...], modality: str
) -> None:
    value = found.get(name)
    if (
        value is None
        or len(value.shape) != len(shape)
        or any(wanted not in (None, has) for wanted, has in zip(shape, value.shape, strict=True))
    ):
        got = "nothing" if value is None else list(value.shape)
        raise UserError(f"{modality} items need {name} of shape {list(shape)}, got {got}.")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        row = int(np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(axis=1))[0])
        raise FoundNonFinite(f"{name} of {modality} item {row} holds NaN or infinity.")
