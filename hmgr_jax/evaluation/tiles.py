"""Codes in tiles of equal shape, in shares of processes, and whether they fit into memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from hmgr_jax.data.split import Source
from hmgr_jax.distributed import hosts
from hmgr_jax.errors import UserError
from hmgr_jax.models.base import Feature

Codes = Any
"""A pytree of host arrays with a leading item axis."""
TILE_BYTES = 64 * 2**20
"""Most bytes of codes of one side of a tile on a device. Codes of fragments take hundreds of
kilobytes an item, and the cost of a tile grows with the product of its sides. The limit keeps a
tile to seconds (minutes on a small machine), which is what an interruption loses."""


@dataclass(frozen=True)
class Bucket:
    """Items whose codes share one padded shape, such as captions of similar length."""

    items: np.ndarray
    """int [n]: the rows (or columns) of the score matrix for these codes, in any order."""
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
    """The number of items of all buckets."""
    return sum(len(bucket.items) for bucket in buckets)


def cut(buckets: Sequence[Bucket], limit: int, devices: int = 1) -> list[Tile]:
    """Tiles of at most ``limit`` items and `TILE_BYTES` of codes a device.

    All tiles of a bucket have one size, so that one program scores them, and need little padding.
    An item larger than `TILE_BYTES` is a tile of its own.
    """
    tiles = []
    for bucket in buckets:
        n = len(bucket.items)
        count = math.ceil(n / (devices * _at_most(bucket, limit)))
        size = devices * math.ceil(n / (devices * max(1, count)))
        tiles += [Tile(bucket, start, size) for start in range(0, n, max(1, size))]
    return tiles


def _at_most(bucket: Bucket, limit: int) -> int:
    """The most items of a bucket for one device."""
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


def in_shares(
    score: Callable[[list[Bucket]], np.ndarray], codes: Codes | Sequence[Bucket], columns: int
) -> np.ndarray:
    """Score the rows of this process, and gather those of all: float32 [rows, columns].

    Args:
        score: buckets with some of the rows, renumbered from 0 -> [these rows, columns].
        codes: of all rows, the same in every process.
        columns: their number.
    """
    buckets = as_buckets(codes)
    index, count = hosts.process_share()
    rows = n_items(buckets)
    size = -(-rows // count)
    own = _between(buckets, index * size, (index + 1) * size)
    scores = np.zeros((size, columns), np.float32)
    if own:
        found = score(own)
        scores[: len(found)] = found
    return hosts.exchange(scores)[:rows]


def _between(buckets: Sequence[Bucket], start: int, stop: int) -> list[Bucket]:
    """The items from ``start`` to ``stop`` - 1, numbered from 0, without empty buckets."""
    found = []
    for bucket in buckets:
        inside = (bucket.items >= start) & (bucket.items < stop)
        if inside.any():
            codes = jax.tree.map(lambda leaf, keep=inside: leaf[keep], bucket.codes)
            found.append(Bucket(bucket.items[inside] - start, codes))
    return found


def check_memory(n_a: int, n_b: int, *, matrices: int = 1, codes: int = 0) -> None:
    """Check that float32 scores [n_a, n_b], held ``matrices`` times, fit into memory.

    ``codes`` are the bytes of codes that will be held beside them. The check passes if the free
    memory is unknown.

    Raises:
        UserError: with the needed and the free memory.
    """
    scores, free = 4 * n_a * n_b * matrices, free_memory_bytes()
    if free is not None and scores + codes > free:
        and_codes = f" and the codes of all items {codes / 1e9:,.1f} GB" if codes else ""
        raise UserError(
            f"The scores of {n_a:,} items with {n_b:,} items take {scores / 1e9:,.1f} GB"
            f"{and_codes}, but {free / 1e9:,.1f} GB of memory are free: evaluate a smaller split, "
            "or use a machine with more memory."
        )


def code_bytes(
    encode: Any,
    variables: Any,
    features: Mapping[str, Feature],
    source: Source,
    buckets: Sequence[int],
) -> int:
    """Bytes of the codes of all items of ``source``, each padded to its bucket.

    Args:
        encode: a function (variables, items, numbers) of ``jax.jit``; only its shapes are used.
        variables: arrays, or their shapes.
        features: inputs of an item.
        source: the items.
        buckets: padded lengths.
    """
    padded = np.asarray(sorted(buckets))
    lengths = np.full(len(source), padded[-1]) if source.lengths is None else source.lengths
    of_item = padded[np.minimum(np.searchsorted(padded, lengths), len(padded) - 1)]
    number, total = jax.ShapeDtypeStruct((1,), np.int32), 0
    for length, count in zip(*np.unique(of_item, return_counts=True), strict=True):
        items = {name: _one(feature, int(length)) for name, feature in features.items()}
        codes = jax.tree.leaves(encode.eval_shape(variables, items, number))
        total += int(count) * sum(leaf.size * leaf.dtype.itemsize for leaf in codes)
    return total


def _one(feature: Feature, length: int) -> jax.ShapeDtypeStruct:
    shape = (length if n is None else n for n in feature.shape)
    return jax.ShapeDtypeStruct((1, *shape), feature.dtype)


def free_memory_bytes() -> int | None:
    """Available memory, or else the memory of this machine; None if both are unknown."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
