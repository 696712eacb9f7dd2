"""What an index knows of the picture files behind its items: ``followed.json`` in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hmgr_jax.data.pictures.decode import READER
from hmgr_jax.data.pictures.files import pictures_below
from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import parse_json
from hmgr_jax.files.workdir import write_text_atomic

FILE = "followed.json"
Stamp = tuple[int, int]
"""Bytes and time of change in nanoseconds."""
GONE: Stamp = (-1, 0)


@dataclass
class Followed:
    """The folders that an index follows, and the files of its items as they were encoded."""

    folders: list[str] = field(default_factory=list)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    """{id: stamp of the file}, of indexed pictures."""
    broken: dict[str, Stamp] = field(default_factory=dict)
    """{id: stamp of the file}, of pictures that could not be read."""
    removed: list[str] = field(default_factory=list)
    """Ids that were removed by hand and do not come back."""
    reader: int = READER
    """The version of the picture reader that decoded the encoded pixels."""

    @classmethod
    def read(cls, folder: Path) -> Followed:
        """Read what a version of an index follows; an index of a split follows nothing."""
        path = folder / FILE
        if not path.is_file():
            return cls()
        try:
            found = parse_json(path.read_text("utf-8"))
            stamps, broken = (
                {name: (int(size), int(time)) for name, (size, time) in found[key].items()}
                for key in ("stamps", "broken")
            )
            folders, removed = ([*map(os.fspath, found[key])] for key in ("folders", "removed"))
            return cls(folders, stamps, broken, removed, int(found["reader"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error!r:.80})") from None

    def write(self, folder: Path) -> None:
        """Write `FILE`."""
        write_text_atomic(folder / FILE, json.dumps(vars(self), ensure_ascii=False) + "\n")


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file; `GONE` if there is none, such as behind a broken link."""
    try:
        about = path.stat()
    except OSError:
        return GONE
    return about.st_size, about.st_mtime_ns


def check_folders(folders: Sequence[Path]) -> Sequence[Path]:
    """Check that the folders exist and that none lies in another; returns them."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}: correct the path, or mount its disk.")
    for a in folders:
        for b in folders:
            if a is not b and b.resolve().is_relative_to(a.resolve()):
                raise UserError(f"{b} lies in {a}: give one of them.")
    return folders


def walk(followed: Followed) -> dict[str, Path]:
    """{id: picture} below the followed folders."""
    base = base_of(followed.folders)
    found = [path for folder in followed.folders for path in pictures_below(Path(folder))]
    return {id_of(path, base): path for path in found}


def base_of(folders: Sequence[str]) -> Path | None:
    """The folder that ids are relative to: the only one, or the common parent."""
    return Path(os.path.commonpath(folders)) if folders else None


def id_of(path: Path, base: Path | None) -> str:
    """The id of a picture: its path below ``base``, or else the whole path."""
    inside = base is not None and path.is_relative_to(base)
    found = path.relative_to(base) if inside and base else path
    return os.fsencode(found).decode("utf-8", "backslashreplace")


def has_text_name(path: Path) -> bool:
    """Whether the path is UTF-8; others cannot be written in an index."""
    return str(path).isascii() or os.fsencode(path).decode("utf-8", "replace") == str(path)


def check_mounted(followed: Followed, found: dict[str, Path]) -> None:
    """Refuse a folder without any picture, as an unmounted disk is, if the index has some of it."""
    base = base_of(followed.folders)
    for folder in followed.folders:
        if any(path.is_relative_to(folder) for path in found.values()):
            continue
        lost = sum((base or Path()).joinpath(id).is_relative_to(folder) for id in followed.stamps)
        if lost:
            raise UserError(
                f"{folder} holds no picture any more, but the index has {lost:,} of it: mount its "
                "disk, or build another index."
            )
