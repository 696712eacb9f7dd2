"""Which rows a preparation has written, in a small JSON file that outlives a kill."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import write_json_atomic

PROGRESS = ".progress.json"
"""Hidden: no part of the data, should a kill leave it behind."""


class Written:
    """The rows of every split that are on disk; ``key`` names the preparation they belong to.

    ``begun`` is when its first attempt began, in nanoseconds of the epoch.

    Raises ``UserError`` where ``folder`` holds something else, or another preparation half done.
    """

    def __init__(self, folder: Path, key: str, rows: Mapping[str, int]) -> None:
        self.path, self.key, self.begun = folder / PROGRESS, key, time.time_ns()
        self.done = {split: np.zeros(count, bool) for split, count in rows.items()}
        if self.path.is_file():
            self._read()
            return
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others:
            raise UserError(
                f"{folder} holds {others[0]} but no {PROGRESS}, so it is no preparation that could "
                "go on: move it away or give another --out."
            )
        self.save()

    def _read(self) -> None:
        advice = "remove it to begin anew, or give another --out."
        try:
            found = json.loads(self.path.read_text("utf-8"))
            if found["key"] != self.key:
                raise UserError(
                    f"{self.path.parent} is another preparation half done, or its sources or "
                    f"options have changed since: {advice}"
                )
            self.begun = int(found["begun"])
            for split, done in self.done.items():
                bits = np.frombuffer(base64.b64decode(found["written"][split]["bits"]), np.uint8)
                done[:] = np.unpackbits(bits, count=len(done)).astype(bool)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} is damaged ({error}): {advice}") from None

    def forget(self, changed: Mapping[str, np.ndarray]) -> None:
        """Rows that count as written no more ({split: bool [rows]})."""
        for split, rows in changed.items():
            self.done[split] &= ~rows

    def todo(self) -> dict[str, np.ndarray]:
        """{split: bool [rows]}, True where a row is still to be written."""
        return {split: ~done for split, done in self.done.items()}

    def count(self) -> int:
        """How many rows of all splits are written."""
        return sum(int(done.sum()) for done in self.done.values())

    def save(self) -> None:
        """Bring it to the disk; the rows themselves must be there already."""
        written = {
            split: {
                "rows": int(done.sum()),
                "of": len(done),
                "bits": base64.b64encode(np.packbits(done).tobytes()).decode(),
            }
            for split, done in self.done.items()
        }
        write_json_atomic(self.path, {"key": self.key, "begun": self.begun, "written": written})
