"""Codes of a gallery beside its index: what a shortlist is scored anew from, without the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hmgr_jax.data.npy_rows import NpyRows
from hmgr_jax.shapes import Int
from hmgr_jax.training.named_leaves import by_name
from hmgr_jax.training.workdir import write_json_atomic

FOLDER, NAMES = "codes", "codes.json"
Codes = Any
"""A pytree of dicts with arrays [n, ...]."""


class CodeStore:
    """Rows of every array of the codes, read on demand."""

    def __init__(self, leaves: dict[str, Any]) -> None:
        self._leaves = leaves

    @classmethod
    def of(cls, codes: Codes) -> CodeStore:
        """Codes that are in memory."""
        return cls({name: np.asarray(leaf) for name, leaf in by_name(codes).items()})

    @classmethod
    def read(cls, folder: Path) -> CodeStore:
        """What `write` left in ``folder``; raises UserError for files that cannot be read."""
        names = json.loads((folder / FOLDER / NAMES).read_text("utf-8"))
        return cls({name: NpyRows(folder / FOLDER / file) for name, file in names.items()})

    def write(self, folder: Path) -> None:
        """A ``.npy`` an array, and their names."""
        (folder / FOLDER).mkdir()
        files = {name: f"{number}.npy" for number, name in enumerate(self._leaves)}
        for name, file in files.items():
            np.save(folder / FOLDER / file, self._leaves[name])
        write_json_atomic(folder / FOLDER / NAMES, files)

    def gather(self, numbers: Int[np.ndarray, "..."]) -> Codes:
        """Codes of these items, leaves [..., *shape of one item's]."""
        found: dict[str, Any] = {}
        for name, rows in self._leaves.items():
            flat = numbers.reshape(-1)
            some = rows.gather(flat) if isinstance(rows, NpyRows) else rows[flat]
            *above, last = name.split("/")
            place = found
            for word in above:
                place = place.setdefault(word, {})
            place[last] = some.reshape(*numbers.shape, *some.shape[1:])
        return found.get("", found)


def demand_dicts(codes: Codes) -> None:
    """Refuse codes that their names would not bring back; no system has such codes."""
    again = CodeStore.of(codes).gather(np.zeros(1, np.int64))
    found, form = (str(jax.tree.structure(tree)) for tree in (again, codes))
    if found != form:
        raise TypeError(f"codes must be dicts of arrays, found {form}")
