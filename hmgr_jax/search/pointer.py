"""A name that points to one index, and to another one a moment later."""

from __future__ import annotations

import os
from pathlib import Path

from hmgr_jax.errors import UserError
from hmgr_jax.search.index import Index
from hmgr_jax.search.served import demand_alike


def point(name: str | Path, folder: str | Path) -> Path | None:
    """Let ``name`` (a symbolic link) mean the index in ``folder`` from now on.

    Who opens ``name`` finds the one or the other, whole. Returns what it meant before, None where
    it was new.

    Raises:
        UserError: ``folder`` is no whole index, or is of another model or dimension than the one
            in use; ``name`` is something else than such a name.
    """
    name, folder = Path(name), Path(folder).resolve()
    index = Index.load(folder)  # all of it: what is damaged must not be served
    index.close()
    before = None
    if name.is_symlink():
        before = name.resolve()
        if before.is_dir():  # what is gone cannot be compared with
            demand_alike(Index.about_of(before), index.about)
    elif name.exists():
        raise UserError(
            f"{name} is a folder or a file of its own: give a name that is free, or one that swap "
            "has made."
        )
    name.parent.mkdir(parents=True, exist_ok=True)
    temporary = name.with_name(f".{name.name}.{os.getpid()}.tmp")
    temporary.symlink_to(folder, target_is_directory=True)
    os.replace(temporary, name)
    return before
