"""A score matrix on disk to resume an interrupted scoring: a cache, never a result.

The folder holds ``scores.npy`` (float32 [n_a, n_b]) and ``tiles.json``: a key of everything the
scores depend on, the number of finished tiles, and the sha256 of their scores.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.tiles import Tile
from hmgr_jax.files.workdir import lock, write_json_atomic

Place = tuple[Any, ...]
"""The index of a tile's scores in the matrix."""
SCORES, RECORD = "scores.npy", "tiles.json"
RECORD_SECONDS = 5.0
"""Least time between writes of the record; a kill loses the tiles since the last one."""
RECORD_SHARE = 0.1
"""Largest share of the time for writing scores to the disk."""


@contextlib.contextmanager
def opened(
    folder: Path, key: str, shape: tuple[int, int], places: Sequence[Place]
) -> Iterator[ScoreStore]:
    """Lock and open the scores in ``folder``, or create them; record the progress at the end.

    ``places`` are those of the tiles, in order. Scores of another key are discarded with a warning,
    and so are scores that do not match their sha256.

    Raises:
        UserError: another process uses the folder, or the disk has no room for the scores.
    """
    with lock(folder):
        store = ScoreStore(folder, key, shape, places)
        try:
            yield store
        finally:
            store.record()


def discard(folder: Path) -> None:
    """Remove a folder of stores, and its parent if it is empty then.

    Scores that were returned from it stay valid.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


class ScoreStore:
    """Scores mapped to a file, and the number of finished tiles."""

    def __init__(
        self, folder: Path, key: str, shape: tuple[int, int], places: Sequence[Place]
    ) -> None:
        self._folder, self._key, self._places = folder, key, places
        self._written = hashlib.sha256()  # of finished tiles
        done = self._usable(shape)
        self._map = self._begin(shape) if done is None else self._open(shape)
        self.scores = np.asarray(self._map)
        """float32 [n_a, n_b], writable."""
        self.done = self._recorded = done or 0
        """Finished tiles."""
        self._due = time.monotonic() + RECORD_SECONDS

    def advance(self, done: int) -> None:
        """Set the number of finished tiles; recorded from time to time."""
        for place in self._places[self.done : done]:
            self._written.update(np.ascontiguousarray(self.scores[place]).data)
        self.done = done
        if time.monotonic() >= self._due:
            self.record()

    def record(self) -> None:
        """Write the scores, and then the number of tiles, to the disk; safe in a crash."""
        begin = time.monotonic()
        if self.done != self._recorded:
            self._map.flush()
            self._write_record(self.done)
        now = time.monotonic()
        self._due = now + max(RECORD_SECONDS, (now - begin) / RECORD_SHARE)

    def _usable(self, shape: tuple[int, int]) -> int | None:
        """Tiles finished by an earlier process, or None without usable scores."""
        try:
            record = json.loads((self._folder / RECORD).read_bytes())
            key, done = str(record["key"]), int(record["done"])
            if key == self._key:
                scores = self._open(shape)
                for place in self._places[:done]:
                    self._written.update(np.ascontiguousarray(scores[place]).data)
                if self._written.hexdigest() == record["sha256"]:
                    return done
                raise ValueError("the scores do not match their sha256")
            why = "are of other weights, items or tiles"
        except FileNotFoundError:
            return None
        except Exception:  # numpy raises anything for a damaged header
            self._written, why = hashlib.sha256(), "are damaged or incomplete"
        warnings.warn(
            f"the unfinished scores in {self._folder} {why}: scoring starts from the beginning",
            RuntimeWarning,
            stacklevel=2,
        )
        return None

    def _open(self, shape: tuple[int, int]) -> np.memmap:
        path = self._folder / SCORES
        size = path.stat().st_size
        found = np.lib.format.open_memmap(path, mode="r+")  # extends a file that was cut short
        if (found.shape, found.dtype, found.offset + found.nbytes) != (shape, np.float32, size):
            raise ValueError(f"{found.dtype} {found.shape} in {size} bytes")
        return found

    def _begin(self, shape: tuple[int, int]) -> np.memmap:
        """Create a new file; a reader of the old one keeps its mapping."""
        path = self._folder / SCORES
        for old in (self._folder / RECORD, path):
            old.unlink(missing_ok=True)
        found = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        try:
            _allocate(path)
        except OSError as error:
            path.unlink()
            raise UserError(
                f"{self._folder} has no room for {found.nbytes / 1e9:,.1f} GB of scores "
                f"({error.strerror}): free space on that disk."
            ) from None
        self._write_record(0)
        return found

    def _write_record(self, done: int) -> None:
        record = {"key": self._key, "done": done, "sha256": self._written.hexdigest()}
        write_json_atomic(self._folder / RECORD, record)
        self._recorded = done


def _allocate(path: Path) -> None:
    """Reserve the space on the disk: a full disk would end the process while it writes the map."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def key_of(score_tile: Partial, sides: Sequence[Sequence[Tile]], mesh: Mesh) -> str:
    """sha256 of everything the scores depend on: function, weights, codes, tiles, devices.

    A plain function is identified by its name, without the variables that it closes over.
    """
    digest = hashlib.sha256()
    function, kind = score_tile.func, mesh.devices.flat[0].device_kind
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    _add(digest, getattr(function, "__qualname__", None) or repr(function))
    _add(digest, (jax.__version__, precision, kind, mesh.size))
    _add_arrays(digest, (score_tile.args, score_tile.keywords))
    for tiles in sides:
        _add(digest, [(tile.start, tile.size) for tile in tiles])
        for bucket in (tile.bucket for tile in tiles if tile.start == 0):
            _add_arrays(digest, (bucket.items, bucket.codes))
    return digest.hexdigest()


def _add(digest: Any, what: object) -> None:
    digest.update(f"{what}\0".encode())


def _add_arrays(digest: Any, tree: Any) -> None:
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        _add(digest, (jax.tree_util.keystr(path), np.shape(leaf), array.dtype))
        digest.update(array.reshape(-1).view(np.uint8))
