"""sha256 of a checkpoint's files, since an array with a flipped bit loads without an error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hmgr_jax.files.workdir import write_json_atomic


def write(folder: Path, digest_file: Path) -> None:
    """Write size and sha256 of every file under ``folder`` to ``digest_file``, atomically."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    digest_file.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(digest_file, {"files": files})


def exist(digest_file: Path) -> bool:
    """Whether ``digest_file`` can be read; a folder without digests is unverified, not damaged."""
    return _read(digest_file) is not None


def first_damage(folder: Path, digest_file: Path, *, hash_all: bool = False) -> str | None:
    """Describe the first file of ``folder`` that is missing or altered; None if there is none.

    Sizes are checked first: they cost nothing and tell a truncated file from a flipped bit. A file
    whose entry has ``mtime_ns`` is hashed only if its modification time differs, or with
    ``hash_all``.
    """
    files = _read(digest_file)
    if files is None:
        return None
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != wanted["bytes"]:
            return f"{path} has {path.stat().st_size} bytes instead of {wanted['bytes']}"
    for name, wanted in files.items():
        unchanged = wanted.get("mtime_ns") == (folder / name).stat().st_mtime_ns
        if (hash_all or not unchanged) and sha256(folder / name) != wanted["sha256"]:
            return f"{folder / name} does not match its sha256"
    return None


def _read(digest_file: Path) -> dict[str, dict] | None:
    try:
        return json.loads(digest_file.read_bytes())["files"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
