"""The score matrix of all pairs, in tiles of fixed padded shape over the devices.

    scores = score_matrix(Partial(model_score, variables), image_codes, caption_codes)

Only the result and a few tiles are in memory at a time. Devices compute while earlier tiles are
copied to the host and the next ones to the devices.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

from hmgr_jax.evaluation import score_store
from hmgr_jax.evaluation.score_store import Place, ScoreStore
from hmgr_jax.evaluation.tiles import Bucket, Codes, Tile, as_buckets, check_memory, cut, n_items

AXIS = "columns"
IN_FLIGHT = 2
"""Tiles dispatched ahead: one in computation, one in transfer."""

Report = Callable[[int, int], None]


def score_matrix(
    score_tile: Callable[[Codes, Codes], jax.Array],
    codes_a: Codes | Sequence[Bucket],
    codes_b: Codes | Sequence[Bucket],
    *,
    tile: tuple[int, int] = (1024, 4096),
    devices: Sequence[jax.Device] | None = None,
    progress: Report | None = None,
    store: Path | None = None,
) -> np.ndarray:
    """Scores of every item of one side with every item of the other, on the host.

    Args:
        score_tile: ``(codes [t_a, ...], codes [t_b, ...]) -> [t_a, t_b]``, compiled here once per
            shape for all devices. Give weights as ``jax.tree_util.Partial(function, weights)``:
            then new weights need no new program, because they are arguments of it. Variables that
            a plain function closes over are compiled into the program.
        codes_a: codes of the rows: a pytree of arrays with a leading item axis, or a list of
            `Bucket`, one per padded shape, that together hold every item once.
        codes_b: the same for the columns.
        tile: most rows, and most columns per device, of a tile; fewer if their codes take more
            than `hmgr_jax.evaluation.tiles.TILE_BYTES`. Each side is cut into equal tiles, and the
            last one is padded. Scores depend on it only by rounding (1e-6 of unit scores).
        devices: share the columns of a tile; default all devices of this process.
        progress: called with (finished tiles, all tiles) after every tile, and before the first
            one if an earlier call has finished tiles.
        store: a folder for the scores. After an interruption, the next call with the same weights,
            codes and tiles resumes and returns exactly the same scores; with others it warns and
            starts from the beginning. `hmgr_jax.evaluation.score_store.discard` removes the folder.

    Returns:
        float32 [n_a, n_b]; with ``store`` it is mapped to the file.

    Raises:
        UserError: arrays of a side disagree on the number of items, buckets do not hold every
            item exactly once, the matrix does not fit into memory (or the disk of ``store``), or
            another process uses ``store``.
    """
    mesh = Mesh(np.array(devices or jax.local_devices()), (AXIS,))
    buckets_a, buckets_b = as_buckets(codes_a), as_buckets(codes_b)
    shape = n_items(buckets_a), n_items(buckets_b)
    check_memory(*shape)
    tiles = cut(buckets_a, tile[0]), cut(buckets_b, tile[1], mesh.size)
    if not isinstance(score_tile, Partial):
        score_tile = Partial(score_tile)
    if store is None:
        return _fill(np.empty(shape, np.float32), score_tile, tiles, mesh, progress, None)
    key = score_store.key_of(score_tile, tiles, mesh)
    places = [_place(a.items, b.items) for a in tiles[0] for b in tiles[1]]
    with score_store.opened(store, key, shape, places) as kept:
        return _fill(kept.scores, score_tile, tiles, mesh, progress, kept)


def _fill(
    scores: np.ndarray,
    score_tile: Partial,
    tiles: tuple[list[Tile], list[Tile]],
    mesh: Mesh,
    progress: Report | None,
    kept: ScoreStore | None,
) -> np.ndarray:
    """Fill ``scores`` with the tiles that ``kept`` does not have."""
    total, first = len(tiles[0]) * len(tiles[1]), kept.done if kept else 0
    if first and progress is not None:
        progress(first, total)
    finished = _in_flight(_dispatch(score_tile, *tiles, mesh, first))
    for done, (rows, columns, values) in enumerate(finished, start=first + 1):
        _write(scores, rows, columns, np.asarray(values))
        if kept is not None:
            kept.advance(done)
        if progress is not None:
            progress(done, total)
    return scores


def _dispatch(
    score_tile: Partial, tiles_a: list[Tile], tiles_b: list[Tile], mesh: Mesh, first: int
) -> Iterator[tuple[np.ndarray, np.ndarray, jax.Array]]:
    """(rows, columns, scores in transfer to the host) of every tile from number ``first`` on."""
    everywhere, shared = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    score_tile = jax.device_put(score_tile, everywhere)
    for row, tile_a in enumerate(tiles_a):
        left = tiles_b[max(0, first - row * len(tiles_b)) :]
        if not left:
            continue
        codes_a = tile_a.put(everywhere)  # copied once for all columns
        for tile_b in left:
            values = _score(score_tile, codes_a, tile_b.put(shared), mesh=mesh)
            values.copy_to_host_async()
            yield tile_a.items, tile_b.items, values


@functools.partial(jax.jit, static_argnames="mesh")
def _score(score_tile: Partial, codes_a: Codes, codes_b: Codes, *, mesh: Mesh) -> jax.Array:
    """[t_a, t_b * devices]: one program for all devices; each scores its own columns."""

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
    """The same sequence, `IN_FLIGHT` steps late, so that tiles are dispatched ahead."""
    ahead: deque = deque()
    for step in dispatched:
        ahead.append(step)
        if len(ahead) > IN_FLIGHT:
            yield ahead.popleft()
    yield from ahead


def _write(scores: np.ndarray, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Write the unpadded part of a tile."""
    scores[_place(rows, columns)] = values[: len(rows), : len(columns)]


def _place(rows: np.ndarray, columns: np.ndarray) -> Place:
    """The index of rows and columns: consecutive ones as slices, which are much faster."""
    target = tuple(
        slice(int(items[0]), int(items[0]) + len(items)) if (np.diff(items) == 1).all() else items
        for items in (rows, columns)
    )
    if all(isinstance(index, np.ndarray) for index in target):
        return np.ix_(rows, columns)
    return target
