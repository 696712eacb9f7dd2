"""Items that a program has in memory already."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hmgr_jax.data.split import Items
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.models.base import Feature

COUNTS = {"n_regions": "regions", "n_frames": "frames"}
"""{input: the input whose true rows it counts}."""


class Arrays:
    """A source of the arrays in ``items``, each [n, ...], checked against what a model takes.

    Integers become int32 and float64 becomes float32; ``n_regions`` (``n_frames``) may be left out
    where every image (clip) has all of its regions (frames). Raises ``UserError`` for an input that
    is missing or of another shape, ``FoundNonFinite`` for NaN and infinity.
    """

    lengths: np.ndarray | None = None

    def __init__(
        self, items: Mapping[str, np.ndarray], modality: str, inputs: Mapping[str, Feature]
    ) -> None:
        found = {name: _narrow(np.asarray(value)) for name, value in items.items()}
        counts = {len(value) if value.ndim else 0 for value in found.values()}
        if len(counts) != 1 or 0 in counts:
            shapes = {name: list(value.shape) for name, value in found.items()}
            raise UserError(f"{modality} items need arrays of one length from 1, found {shapes}.")
        self._count = counts.pop()
        for name, of in COUNTS.items():
            if name in inputs and name not in found and of in found:
                found[name] = np.full(self._count, found[of].shape[1:2] or 0, np.int32)
        for name, feature in inputs.items():
            if name in found or not feature.optional:
                _demand(found, name, (self._count, *feature.shape), modality)
        self._items = found

    def __len__(self) -> int:
        return self._count

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """The rows ``items`` of every array."""
        return {name: value[items] for name, value in self._items.items()}


def _narrow(value: np.ndarray) -> np.ndarray:
    if value.dtype.kind in "iu":
        return value.astype(np.int32)
    return value.astype(np.float32) if value.dtype == np.float64 else value


def _demand(
    found: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, ...], modality: str
) -> None:
    value = found.get(name)
    if (
        value is None
        or len(value.shape) != len(shape)
        or any(wanted not in (None, has) for wanted, has in zip(shape, value.shape, strict=True))
    ):
        got = "nothing" if value is None else list(value.shape)
        raise UserError(f"{modality} items need {name} of shape {list(shape)}, found {got}.")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        row = int(np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(axis=1))[0])
        raise FoundNonFinite(f"{name} of {modality} item {row} holds NaN or infinity.")
