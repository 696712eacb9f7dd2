"""Commands that keep an index: ``search update``, ``add``, ``remove`` and ``info``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hmgr_jax.command import required
from hmgr_jax.terminal import escape_controls

if TYPE_CHECKING:
    from hmgr_jax.search.following import Changes


def update(flags: argparse.Namespace) -> int:
    """Follow the folders of an index."""
    folder = Path(required(flags, "index"))
    from hmgr_jax.search import following

    return _tell(folder, following.update(folder, flags.workdir))


def add(flags: argparse.Namespace) -> int:
    """Add pictures."""
    folder = Path(required(flags, "index"))
    from hmgr_jax.search import following

    return _tell(folder, following.add(folder, [Path(file) for file in flags.files], flags.workdir))


def remove(flags: argparse.Namespace) -> int:
    """Remove items."""
    folder = Path(required(flags, "index"))
    from hmgr_jax.search import following

    return _tell(folder, following.remove(folder, flags.ids, flags.workdir))


def info(flags: argparse.Namespace) -> int:
    """Print what an index holds, without loading its model."""
    from hmgr_jax.search import index_files, versions
    from hmgr_jax.search.followed import Followed

    folder = Path(required(flags, "index"))
    place = versions.current(folder)
    manifest = index_files.manifest_of(place)
    about, followed = manifest["about"], Followed.read(place)
    rows = {
        "items": f"{about['count']:,} {about.get('modality', '')}".strip(),
        "model": f"{about.get('system', 'unknown')} {about['model']}",
        "run": about.get("workdir"),
        "split": about.get("split"),
        "engine": f"{about['engine']}, dimension {about['dim']}",
        "recall@10": about.get("recall@10"),
        "follows": ", ".join(followed.folders),
        "unreadable": f"{len(followed.broken):,}" if followed.broken else None,
        "removed": f"{len(followed.removed):,} by hand" if followed.removed else None,
        "version": f"{place.name if place != folder.resolve() else 1}, written by "
        f"{manifest['version']}",
        "size": f"{versions.size_of(place) / 1e6:,.1f} MB",
    }
    for name, value in rows.items():
        if value not in (None, ""):
            print(f"{name + ':':<12}{escape_controls(str(value))}")
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "update": update,
    "add": add,
    "remove": remove,
    "info": info,
}


def _tell(folder: Path, done: Changes) -> int:
    from hmgr_jax.data.pictures.files import warn_left_out

    warn_left_out(done.broken, done.items + len(done.broken), str(folder))
    counts = (done.added, "added"), (done.changed, "changed"), (done.gone, "dropped")
    told = ", ".join(f"{len(ids):,} {what}" for ids, what in counts)
    print(f"{told}; the index has {done.items:,} items")
    return 0
