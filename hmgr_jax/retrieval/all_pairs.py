"""The score matrix of all pairs, in tiles of fixed padded shape over the devices.

    scores = score_matrix(Partial(model_score, variables), image_codes, caption_codes)

Only the result and a few tiles are in memory at a time, and the devices compute while earlier
tiles travel back and the next ones in.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

from hmgr_jax.errors import UserError

Codes = Any
"""A pytree of host arrays with a leading item axis."""
AXIS = "columns"
IN_FLIGHT = 2
"""Tiles dispatched ahead: one computing, one travelling."""


@dataclass(frozen=True)
class Bucket:
    """Items whose codes share one padded shape, as captions of like length do."""

    items: np.ndarray
    """int [n]: rows (or columns) of the score matrix that these codes fill, in any order."""
    codes: Codes
    """Leaves [n, ...], in the order of ``items``."""


def score_matrix(
    score_tile: Callable[[Codes, Codes], jax.Array],
    codes_a: Codes | Sequence[Bucket],
    codes_b: Codes | Sequence[Bucket],
    *,
    tile: tuple[int, int] = (1024, 4096),
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Scores of every item of one side with every item of the other, on the host.

    Args:
        score_tile: ``(codes [t_a, ...], codes [t_b, ...]) -> [t_a, t_b]``, compiled here, once a
            shape for all devices. Give weights as ``jax.tree_util.Partial(function, weights)``:
            then they are arguments of the program and new weights need no new one, while what a
            plain function closes over is compiled into it.
        codes_a: codes of the rows: a pytree of arrays with a leading item axis, or a list of
            `Bucket`, one a padded shape, that together hold every item once.
        codes_b: the same for the columns.
        tile: at most so many rows, and so many columns a device, at once. A side is cut into
            equal tiles, the last one filled up with repeats of its first item, which are cut off
            again. Scores do not depend on it beyond rounding (1e-6 of unit scores).
        devices: share the columns of a tile; default all devices of this process.
        progress: called with (tiles done, tiles in all) after every tile.

    Returns:
        float32 [n_a, n_b].

    Raises:
        UserError: arrays of a side disagree on the number of items, or buckets do not hold every
            item exactly once.
    """
    mesh = Mesh(np.array(devices or jax.local_devices()), (AXIS,))
    buckets_a, buckets_b = _buckets(codes_a), _buckets(codes_b)
    tiles_a, tiles_b = _tiles(buckets_a, tile[0]), _tiles(buckets_b, tile[1], mesh.size)
    scores = np.empty((_n_items(buckets_a), _n_items(buckets_b)), np.float32)
    if not isinstance(score_tile, Partial):
        score_tile = Partial(score_tile)
    total = len(tiles_a) * len(tiles_b)
    finished = _in_flight(_dispatch(score_tile, tiles_a, tiles_b, mesh))
    for done, (rows, columns, values) in enumerate(finished, start=1):
        _write(scores, rows, columns, np.asarray(values))
        if progress is not None:
            progress(done, total)
    return scores


class _Tile(NamedTuple):
    """A run of at most ``size`` items of a bucket."""

    bucket: Bucket
    start: int
    size: int

    @property
    def items(self) -> np.ndarray:
        return self.bucket.items[self.start : self.start + self.size]

    def put(self, sharding: NamedSharding) -> Codes:
        """The codes on the devices, padded to ``size`` items."""

        def cut(leaf: np.ndarray) -> np.ndarray:
            part = leaf[self.start : self.start + self.size]
            missing = self.size - len(part)
            return np.concatenate([part, np.repeat(part[:1], missing, 0)]) if missing else part

        return jax.device_put(jax.tree.map(cut, self.bucket.codes), sharding)


def _dispatch(
    score_tile: Partial, tiles_a: list[_Tile], tiles_b: list[_Tile], mesh: Mesh
) -> Iterator[tuple[np.ndarray, np.ndarray, jax.Array]]:
    """(rows, columns, scores on their way to the host) of every tile."""
    everywhere, shared = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    score_tile = jax.device_put(score_tile, everywhere)
    for tile_a in tiles_a:
        codes_a = tile_a.put(everywhere)  # travels in once for all columns
        for tile_b in tiles_b:
            values = _score(score_tile, codes_a, tile_b.put(shared), mesh=mesh)
            values.copy_to_host_async()
            yield tile_a.items, tile_b.items, values


@functools.partial(jax.jit, static_argnames="mesh")
def _score(score_tile: Partial, codes_a: Codes, codes_b: Codes, *, mesh: Mesh) -> jax.Array:
    """[t_a, t_b * devices]: one program for all devices, each of which scores its own columns."""

    def own_columns(score_tile: Partial, codes_a: Codes, codes_b: Codes) -> jax.Array:
        values = score_tile(codes_a, codes_b)
        expected = tuple(len(jax.tree.leaves(codes)[0]) for codes in (codes_a, codes_b))
        if values.shape != expected:
            raise ValueError(f"score_tile must return {expected}, found {values.shape}")
        return values

    columns = jax.shard_map(
        own_columns,
        mesh=mesh,
        in_specs=(P(), P(), P(AXIS)),
        out_specs=P(None, AXIS),
        check_vma=False,
    )
    return columns(score_tile, codes_a, codes_b)


def _in_flight(dispatched: Iterator) -> Iterator:
    """The same sequence, `IN_FLIGHT` steps behind: dispatching runs ahead of reading."""
    ahead: deque = deque()
    for step in dispatched:
        ahead.append(step)
        if len(ahead) > IN_FLIGHT:
            yield ahead.popleft()
    yield from ahead


def _write(scores: np.ndarray, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Write the unpadded part of a tile; runs of items as slices, which copy much faster."""
    target = tuple(
        slice(int(items[0]), int(items[0]) + len(items)) if (np.diff(items) == 1).all() else items
        for items in (rows, columns)
    )
    if all(isinstance(index, np.ndarray) for index in target):
        target = np.ix_(rows, columns)
    scores[target] = values[: len(rows), : len(columns)]


def _buckets(codes: Codes | Sequence[Bucket]) -> list[Bucket]:
    """Codes as buckets of numpy arrays that agree on their items."""
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


def _length(codes: Codes) -> int:
    lengths = {len(leaf) for leaf in jax.tree.leaves(codes)}
    if len(lengths) != 1:
        raise UserError(
            f"codes of one side must be arrays with the same number of items, found {lengths}"
        )
    return lengths.pop()


def _n_items(buckets: list[Bucket]) -> int:
    return sum(len(bucket.items) for bucket in buckets)


def _tiles(buckets: list[Bucket], limit: int, devices: int = 1) -> list[_Tile]:
    """Tiles of at most ``limit`` items a device, as equal as can be: padding stays small."""
    tiles = []
    for bucket in buckets:
        n = len(bucket.items)
        count = math.ceil(n / (limit * devices))
        size = devices * math.ceil(n / (devices * max(1, count)))
        tiles += [_Tile(bucket, start, size) for start in range(0, n, max(1, size))]
    return tiles
