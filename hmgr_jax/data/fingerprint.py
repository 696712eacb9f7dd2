"""Digests of data on disk, by which a resumed run detects that the data changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from hmgr_jax.files.reading import parse_json

BLOCKS = 64
BLOCK_BYTES = 4096


def fingerprint(paths: Iterable[str | Path], root: str | Path | None = None) -> str:
    """Hexadecimal digest of files: names, sizes and 64 blocks of each, evenly spread.

    Reads at most 256 KiB of a file, so a change between the blocks goes unnoticed. The sha256 of
    ``root/manifest.json``, if it exists, stands for the files that it lists.
    """
    digest, files = hashlib.sha256(), list(map(Path, paths))
    manifest = Path(root) / "manifest.json" if root is not None else None
    if manifest is not None and manifest.is_file():
        digest.update(manifest.read_bytes())
        files = _unlisted(files, manifest)
    for path in sorted(files, key=lambda p: p.name):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        for block in _sample(path, size):
            digest.update(block)
    return digest.hexdigest()


def _unlisted(paths: Iterable[Path], manifest: Path) -> list[Path]:
    """Files in the folder of ``manifest`` that it does not list; none if it is of another program.

    Files elsewhere are derived from the folder, see `hmgr_jax.data.records.open`.
    """
    try:
        listed = parse_json(manifest.read_bytes())["files"]
        folder = manifest.parent.resolve()
        return [p for p in paths if p.name not in listed and p.parent.resolve() == folder]
    except (ValueError, KeyError, TypeError):
        return []


def _sample(path: Path, size: int) -> Iterable[bytes]:
    """A small file whole, else evenly spread blocks from the first byte to the last."""
    if size <= BLOCKS * BLOCK_BYTES:
        yield path.read_bytes()
        return
    with path.open("rb") as file:
        for k in range(BLOCKS):
            yield os.pread(file.fileno(), BLOCK_BYTES, (size - BLOCK_BYTES) * k // (BLOCKS - 1))
