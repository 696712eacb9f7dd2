"""Codes cut into tiles of equal shape, bounded in items and in bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from hmgr_jax.errors import UserError

Codes = Any
"""A pytree of host arrays with a leading item axis."""
TILE_BYTES = 64 * 2**20
"""Codes of one side of a tile on a device, whatever their number. Codes of fragments are as large
as hundreds of kilobytes an item; what a tile costs grows with the product of its sides, so this
also keeps a tile to seconds (minutes on a small machine), which is what an interruption loses."""


@dataclass(frozen=True)
class Bucket:
    """Items whose codes share one padded shape, as captions of like length do."""

    items: np.ndarray
    """int [n]: rows (or columns) of the score matrix that these codes fill, in any order."""
    codes: Codes
    """Leaves [n, ...], in the order of ``items``."""


class Tile(NamedTuple):
    """A run of at most ``size`` items of a bucket."""

    bucket: Bucket
    start: int
    size: int

    @property
    def items(self) -> np.ndarray:
        """The true items without padding, int [n]."""
        return self.bucket.items[self.start : self.start + self.size]

    def put(self, sharding: NamedSharding) -> Codes:
        """The codes on the devices, padded to ``size`` items with repeats of the first one."""

        def cut(leaf: np.ndarray) -> np.ndarray:
            part = leaf[self.start : self.start + self.size]
            missing = self.size - len(part)
            return np.concatenate([part, np.repeat(part[:1], missing, 0)]) if missing else part

        return jax.device_put(jax.tree.map(cut, self.bucket.codes), sharding)


def as_buckets(codes: Codes | Sequence[Bucket]) -> list[Bucket]:
    """Codes as buckets of numpy arrays that agree on their items.

    Raises:
        UserError: arrays disagree on the number of items, or buckets do not hold every item
            exactly once.
    """
    if not (isinstance(codes, (list, tuple)) and codes and isinstance(codes[0], Bucket)):
        codes = [Bucket(np.arange(_length(codes)), codes)]
    buckets = [Bucket(np.asarray(b.items), jax.tree.map(np.asarray, b.codes)) for b in codes]
    for bucket in buckets:
        if _length(bucket.codes) != len(bucket.items):
            raise UserError(
                f"a bucket must name the item of each of its {_length(bucket.codes)} codes, found "
                f"{len(bucket.items)} items"
            )
    items = np.concatenate([bucket.items for bucket in buckets])
    if not np.array_equal(np.sort(items), np.arange(len(items))):
        raise UserError(
            f"buckets must hold every item once, found {len(items)} items of which "
            f"{len(np.unique(items))} are distinct, up to number {items.max(initial=-1)}"
        )
    return buckets


def n_items(buckets: Sequence[Bucket]) -> int:
    """How many items the buckets hold together."""
    return sum(len(bucket.items) for bucket in buckets)


def cut(buckets: Sequence[Bucket], limit: int, devices: int = 1) -> list[Tile]:
    """Tiles of at most ``limit`` items and `TILE_BYTES` of codes a device.

    All tiles of a bucket have one size, so that one program scores them, and are as equal as can
    be, so that padding stays small. An item larger than `TILE_BYTES` is a tile of its own.
    """
    tiles = []
    for bucket in buckets:
        n = len(bucket.items)
        count = math.ceil(n / (devices * _at_most(bucket, limit)))
        size = devices * math.ceil(n / (devices * max(1, count)))
        tiles += [Tile(bucket, start, size) for start in range(0, n, max(1, size))]
    return tiles


def _at_most(bucket: Bucket, limit: int) -> int:
    """How many items of a bucket a device may hold."""
    codes = sum(leaf.nbytes for leaf in jax.tree.leaves(bucket.codes))
    an_item = max(1, codes // max(1, len(bucket.items)))
    return max(1, min(limit, TILE_BYTES // an_item))


def _length(codes: Codes) -> int:
    lengths = {len(leaf) for leaf in jax.tree.leaves(codes)}
    if len(lengths) != 1:
        raise UserError(
            f"codes of one side must be arrays with the same number of items, found {lengths}"
        )
    return lengths.pop()
