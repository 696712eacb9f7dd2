"""Versions of an index: ``OUT/current`` is a link to ``OUT/versions/N``, replaced atomically.

An index that was never changed has no versions: its files lie in ``OUT`` itself. The version before
the current one is kept, since a query may still be reading it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hmgr_jax.files.workdir import link_atomic
from hmgr_jax.search.index_files import COMMAND, MANIFEST, VERSIONS

CURRENT = "current"
OWN = (VERSIONS, CURRENT, ".lock")
"""Entries of the folder of an index that belong to no version."""


def current(folder: str | Path) -> Path:
    """The folder of the current version, without links, so that a later change does not move it."""
    link = Path(os.path.realpath(folder), CURRENT)  # `Path.resolve` raises for a loop of links
    return Path(os.path.realpath(link if link.is_symlink() else link.parent))


def publish(folder: Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` make the next version of the index in ``folder``, and make it current.

    The caller holds the lock of the folder. Returns the folder of the new version.
    """
    folder, before = folder.resolve(), current(folder)
    number = int(before.name) + 1 if before != folder else 2
    new = folder / VERSIONS / str(number)
    if new.exists():  # complete, but a kill came before the link
        shutil.rmtree(new)
    write(new)
    link_atomic(folder / CURRENT, Path(VERSIONS, str(number)))
    for old in (folder / VERSIONS).iterdir():
        if old not in (new, before):
            shutil.rmtree(old)
    if before != folder and (folder / MANIFEST).exists():
        _remove_first(folder)
    return new


def _remove_first(folder: Path) -> None:
    """Remove the files of the version that lies in ``folder`` itself, the manifest first."""
    (folder / MANIFEST).unlink()
    for path in folder.iterdir():
        if path.name not in OWN:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def command_of(folder: Path) -> str:
    """The command that built a version."""
    file = folder / COMMAND
    return file.read_text("utf-8") if file.is_file() else ""


def size_of(folder: Path) -> int:
    """Bytes of the files of a version."""
    own = (p for p in folder.rglob("*") if p.relative_to(folder).parts[0] not in OWN)
    return sum(path.stat().st_size for path in own if path.is_file())
