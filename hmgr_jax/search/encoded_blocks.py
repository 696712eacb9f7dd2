"""Codes of picture files, block after block on disk, so that a killed command goes on.

    KEY/codes/       the codes of the readable pictures of a block, see `CodeStore`
    KEY/readable.npy bool [n]: which pictures of the block can be read
    KEY/digests.json sizes and sha256 of both: a damaged block is encoded again

KEY is a digest of the model, the reader, the files and their stamps: a file that changes is encoded
again.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hmgr_jax.data.pictures.decode import READER
from hmgr_jax.data.pictures.files import decodable
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files import digests
from hmgr_jax.files.arrays import read_npy
from hmgr_jax.files.workdir import partial_folder, write_npy_atomic
from hmgr_jax.progress import Progress
from hmgr_jax.search.followed import Stamp
from hmgr_jax.search.rerank import CodeStore

AT_ONCE = 256
"""Pictures of a block."""
READABLE, DIGESTS = "readable.npy", "digests.json"
Codes = Any


def encode_files(
    retriever: Retriever, key: str, files: Sequence[tuple[Path, Stamp]], blocks: Path
) -> tuple[Codes, np.ndarray]:
    """Codes of the readable pictures, in order, and which can be read, bool [n].

    Args:
        retriever: reads pictures.
        key: of the model, see `hmgr_jax.search.searcher.model_key`.
        files: pictures with their stamps, at least one.
        blocks: a folder for the blocks, which the caller removes in the end.

    Raises:
        UserError: the system reads no picture files; the codes are None if none can be read.
    """
    parts, readable = [], []
    bar = Progress(len(files), "pictures", title="encoding", stream=sys.stderr, announce_after=2.0)
    with bar as progress:
        for first in range(0, len(files), AT_ONCE):
            some = files[first : first + AT_ONCE]
            own = blocks / _digest(key, some)
            if not _is_whole(own):
                _write(own, *_encode(retriever, [path for path, _ in some]))
            good = read_npy(own / READABLE, "run the command again.")
            readable.append(good)
            if good.any():
                parts.append(CodeStore.read(own, good.sum()).gather(np.arange(good.sum())))
            progress.update(first + len(some))
    codes = concatenate(parts) if parts else None
    return codes, np.concatenate(readable)


def concatenate(parts: Sequence[Codes]) -> Codes:
    """Codes of several groups of items in one tree.

    Raises:
        UserError: codes of two groups differ in shape, such as sentences of other lengths.
    """
    try:
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    except ValueError as error:
        raise UserError(
            f"These items have codes of other shapes than those of the index ({error}): build the "
            "index again with all of them."
        ) from None


def _digest(key: str, files: Sequence[tuple[Path, Stamp]]) -> str:
    text = "\0".join([key, str(READER), *(f"{path}\0{stamp}" for path, stamp in files)])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _encode(retriever: Retriever, files: list[Path]) -> tuple[Codes, np.ndarray]:
    readable = np.ones(len(files), bool)
    try:
        return retriever.encode("image", files), readable
    except UserError:
        readable = np.array([*decodable(files)])
        if readable.all():  # the error is not one of pictures
            raise
    good = [file for file, kept in zip(files, readable, strict=True) if kept]
    return (retriever.encode("image", good) if good else None), readable


def _is_whole(folder: Path) -> bool:
    """Whether a killed or earlier command wrote the block, and nothing changed it since."""
    known = digests.read(folder / DIGESTS)
    return known is not None and digests.first_damage(folder, known["files"]) is None


def _write(folder: Path, codes: Codes, readable: np.ndarray) -> None:
    partial = partial_folder(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if codes is not None:
        CodeStore.of(codes).write(partial)
    write_npy_atomic(partial / READABLE, readable)
    digests.write(partial, partial / DIGESTS)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
