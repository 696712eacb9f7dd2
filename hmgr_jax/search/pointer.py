"""Replace an index while it is in use: a name on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import link_atomic
from hmgr_jax.search.index import Index


def point(name: str | Path, folder: str | Path) -> Path | None:
    """Make ``name`` (a symbolic link) refer to the index in ``folder``, atomically.

    Returns:
        the previous folder, or None if the name is new.

    Raises:
        UserError: ``folder`` is not a complete index, its model or dimension differs from the
            previous index, or ``name`` is not a symbolic link.
    """
    name, folder = Path(name), Path(os.path.realpath(folder))
    index = Index.load(folder, verify=True)  # a damaged index must not be served
    index.close()
    before = None
    if name.is_symlink():
        before = Path(os.path.realpath(name))
        if before.is_dir():  # a removed folder cannot be compared
            check_alike(Index.about_of(before), index.about)
    elif name.exists():
        raise UserError(f"{name} is a file or folder: give a new name, or a name created by swap.")
    name.parent.mkdir(parents=True, exist_ok=True)
    link_atomic(name, folder)
    return before


def check_alike(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Check that two indices have the same model and dimension.

    Raises:
        UserError: they differ; the message names the difference.
    """
    for key, what in (("model", "model"), ("dim", "dimension")):
        if before[key] != after[key]:
            raise UserError(
                f"The other index has {what} {after[key]}, the one in use {before[key]}: build it "
                "with the same run."
            )
