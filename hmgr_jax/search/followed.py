"""What an index knows of the picture files behind its items: ``followed.json`` in its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import write_text_atomic

FILE = "followed.json"
Stamp = tuple[int, int]
"""Bytes and time of change in nanoseconds."""


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

    @classmethod
    def read(cls, folder: Path) -> Followed:
        """Those of a version; an index of a split follows nothing."""
        path = folder / FILE
        if not path.is_file():
            return cls()
        try:
            found = json.loads(path.read_text("utf-8"))
            stamps, broken = (
                {name: (int(size), int(time)) for name, (size, time) in found[key].items()}
                for key in ("stamps", "broken")
            )
            return cls(found["folders"], stamps, broken, found["removed"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read ({error}): build the index again.") from None

    def write(self, folder: Path) -> None:
        """Write `FILE`."""
        write_text_atomic(folder / FILE, json.dumps(vars(self), ensure_ascii=False) + "\n")


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file; raises OSError if there is none."""
    about = path.stat()
    return about.st_size, about.st_mtime_ns
