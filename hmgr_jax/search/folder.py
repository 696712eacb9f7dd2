"""Vectors of the pictures in a folder, kept in the user's cache and refreshed when files change.

A picture is encoded again if its size or its time of change differs. Pictures that cannot be read
are left out. The cache is written after every few hundred pictures, so that a killed run goes on.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hmgr_jax.data.pictures.decode import READER
from hmgr_jax.data.pictures.files import decodable, first_names, pictures_below
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.arrays import read_npz
from hmgr_jax.files.workdir import cache_folder, replacing
from hmgr_jax.progress import Progress
from hmgr_jax.search.followed import Stamp, stamp_of
from hmgr_jax.search.searcher import model_key

AT_ONCE = 256
"""Pictures between two writes of the cache."""


class FolderVectors(NamedTuple):
    """The readable pictures of a folder, in the order of their names, and what was done."""

    names: list[str]
    """Relative to the folder."""
    vectors: np.ndarray
    """float32 [n, E]."""
    broken: list[str]
    """Pictures that cannot be read."""
    encoded: int
    """New and changed pictures."""
    gone: int


def vectors_of(folder: Path, retriever: Retriever, cache: Path | None = None) -> FolderVectors:
    """The vectors of all pictures in a folder and its subfolders.

    Args:
        folder: the folder.
        retriever: a system with one vector per item that reads pictures.
        cache: where vectors are kept; by default `cache_folder`.

    Raises:
        UserError: there is no readable picture, or the system reads no pictures.
    """
    place = f"{folder.resolve()}\0{model_key(retriever)}\0{READER}"
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    file = (cache or cache_folder()) / "folders" / f"{name}.npz"
    found = {path.relative_to(folder).as_posix(): path for path in pictures_below(folder)}
    stamps = {name: stamp_of(path) for name, path in found.items()}
    known = _read(file)
    kept = {n: entry for n, entry in known.items() if stamps.get(n) == entry[0]}
    wanted = [name for name in stamps if name not in kept]
    for some in _with_progress(wanted):
        vectors = _encode(retriever, [found[name] for name in some])
        kept |= {n: (stamps[n], v) for n, v in zip(some, vectors, strict=True)}
        _write(file, kept)
    if not wanted and len(kept) < len(known):
        _write(file, kept)
    names = sorted(name for name, (_, vector) in kept.items() if vector is not None)
    broken = sorted(kept.keys() - {*names})
    if not names:
        told = f"{len(broken):,} that cannot be read: {first_names(broken)}" if broken else "none"
        raise UserError(f"{folder} holds no readable picture ({told}): give another folder.")
    stacked = np.stack([v for v in (kept[name][1] for name in names) if v is not None])
    gone = len(known.keys() - stamps.keys())
    return FolderVectors(names, stacked, broken, len({*wanted} - {*broken}), gone)


def _with_progress(names: list[str]) -> Iterator[list[str]]:
    if not names:
        return
    bar = Progress(len(names), "pictures", title="encoding", stream=sys.stderr, announce_after=2.0)
    with bar as progress:
        for first in range(0, len(names), AT_ONCE):
            some = names[first : first + AT_ONCE]
            yield some
            progress.update(first + len(some))


def _encode(retriever: Retriever, files: list[Path]) -> list[np.ndarray | None]:
    """The vector of each picture; None for one that cannot be read."""
    good = files
    try:
        vectors = _vectors(retriever, files)
    except UserError:
        good = list(itertools.compress(files, decodable(files)))
        vectors = _vectors(retriever, good) if good else np.zeros((0, 0), np.float32)
    found = dict(zip(good, vectors, strict=True))
    return [found.get(file) for file in files]


def _vectors(retriever: Retriever, files: list[Path]) -> np.ndarray:
    codes = retriever.encode("image", files)
    return retriever.evaluator.vectors(retriever.variables, "image", codes)


def _read(file: Path) -> dict[str, tuple[Stamp, np.ndarray | None]]:
    """{picture: its stamp and vector}; empty without a whole file."""
    try:
        data = read_npz(file, "it is made again.", ("names", "stamps", "rows", "vectors"))
    except UserError:
        return {}
    names, stamps = data["names"].tolist(), data["stamps"].tolist()
    rows, vectors = data["rows"], data["vectors"]
    own = [vectors[row] if row >= 0 else None for row in rows.tolist()]
    return {n: ((s[0], s[1]), v) for n, s, v in zip(names, stamps, own, strict=True)}


def _write(file: Path, kept: dict[str, tuple[Stamp, np.ndarray | None]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    vectors = [vector for _, vector in kept.values() if vector is not None]
    has = np.array([vector is not None for _, vector in kept.values()], bool)
    with replacing(file) as opened:
        np.savez(
            opened,
            names=np.array(list(kept), np.str_),
            stamps=np.array([stamp for stamp, _ in kept.values()], np.int64).reshape(-1, 2),
            rows=np.where(has, np.cumsum(has) - 1, -1),
            vectors=np.stack(vectors) if vectors else np.zeros((0, 0), np.float32),
        )
