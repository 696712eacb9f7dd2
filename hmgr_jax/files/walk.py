"""Files below a folder, and names that mean the same file."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import deque
from collections.abc import Collection
from pathlib import Path

NAMED = 3
"""Folders that a warning names."""


def files_below(folder: Path, endings: Collection[str]) -> list[Path]:
    """Files with these endings, in lower or upper case, in a folder and its subfolders, sorted.

    Links to folders are followed, but no folder is read twice: real folders come first. Files and
    folders whose names begin with a point are left out. Warns of folders that cannot be read.

    Args:
        folder: where to look.
        endings: in lower case, with their points.
    """
    found, seen, waiting = [], set(), deque([folder])
    unread: list[OSError] = []
    while waiting:
        for place, below, names in os.walk(waiting.popleft(), onerror=unread.append):
            if (real := os.path.realpath(place)) in seen:
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if not name.startswith("."))
            waiting += [Path(place, name) for name in below if Path(place, name).is_symlink()]
            found += [
                Path(place, name)
                for name in names
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in endings
            ]
    if unread:
        listed = ", ".join(f"{error.filename} ({error.strerror})" for error in unread[:NAMED])
        warnings.warn(
            f"{len(unread)} folder(s) cannot be read, so their files are left out: {listed}"
            + (", ..." if len(unread) > NAMED else ""),
            RuntimeWarning,
            stacklevel=2,
        )
    return sorted(found)


def one_name(name: str) -> str:
    """The name in Unicode's NFC: macOS writes é as two characters, a caption file as one."""
    return unicodedata.normalize("NFC", name)
