"""Digests of data on disk, by which a resumed run detects that the data changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from hmgr_jax.files.manifest import MANIFEST, blocks, entries, stands_for

COMPARED = 256
"""Most files whose blocks are compared with a manifest."""


def fingerprint(paths: Iterable[str | Path], root: str | Path | None = None) -> str:
    """Hexadecimal digest of files: names, sizes and 64 blocks of each, evenly spread.

    Reads at most 256 KiB of a file, so a change between the blocks goes unnoticed. The sha256 of
    ``root/manifest.json``, if it exists, stands for the files that it lists and that have not been
    changed since; of more than `COMPARED` files it tells changes of size, and of every n-th file
    changes of blocks.
    """
    digest, files = hashlib.sha256(), list(map(Path, paths))
    if root is not None and Path(root, MANIFEST).is_file():
        digest.update(Path(root, MANIFEST).read_bytes())
        known, folder = entries(Path(root)), Path(root).resolve()
        read = set(files[:: max(1, -(-len(files) // COMPARED))])
        files = [p for p in files if not stands_for(known, folder, p, by_blocks=p in read)]
    for path in sorted(files, key=lambda p: p.name):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        for block in blocks(path):
            digest.update(block)
    return digest.hexdigest()
