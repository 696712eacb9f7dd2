"""Codes of a gallery beside its index: what a shortlist is scored anew from, without the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.files.npy_rows import NpyRows
from hmgr_jax.files.workdir import write_json_atomic
from hmgr_jax.shapes import Int

FOLDER, FORM = "codes", "form.json"
Codes = Any
"""A tree of dicts and tuples with arrays [n, ...]."""


class CodeStore:
    """Rows of every array of the codes, in memory or read on demand."""

    def __init__(self, form: Any, leaves: list[Any]) -> None:
        self._form, self._leaves = form, leaves

    @classmethod
    def of(cls, codes: Codes) -> CodeStore:
        """Codes that are in memory.

        Raises:
            TypeError: other containers than dicts and tuples, which JSON would not bring back.
        """
        leaves: list[Any] = []
        return cls(_form_of(codes, leaves), leaves)

    @classmethod
    def read(cls, folder: Path) -> CodeStore:
        """What `write` left in ``folder``; raises UserError for arrays that cannot be read."""
        found = json.loads((folder / FOLDER / FORM).read_text("utf-8"))
        return cls(
            found["form"], [NpyRows(folder / FOLDER / f"{n}.npy") for n in range(found["leaves"])]
        )

    def write(self, folder: Path) -> None:
        """A ``.npy`` an array, and how they make a tree."""
        (folder / FOLDER).mkdir()
        for number, leaf in enumerate(self._leaves):
            np.save(folder / FOLDER / f"{number}.npy", leaf)
        form = {"form": self._form, "leaves": len(self._leaves)}
        write_json_atomic(folder / FOLDER / FORM, form)

    def gather(self, numbers: Int[np.ndarray, "..."]) -> Codes:
        """Codes of these items, leaves [..., *shape of one item's]."""
        flat = numbers.reshape(-1)
        some = [
            rows.gather(flat) if isinstance(rows, NpyRows) else rows[flat] for rows in self._leaves
        ]
        return _filled(self._form, [x.reshape(*numbers.shape, *x.shape[1:]) for x in some])


def _form_of(tree: Any, leaves: list[Any]) -> Any:
    """The tree with a number in place of each array, which is appended to ``leaves``."""
    if type(tree) is dict:
        return {"dict": {name: _form_of(value, leaves) for name, value in tree.items()}}
    if type(tree) is tuple:
        return {"tuple": [_form_of(value, leaves) for value in tree]}
    if not hasattr(tree, "shape"):
        raise TypeError(f"codes are dicts and tuples of arrays, found {type(tree).__name__}")
    leaves.append(np.asarray(tree))
    return len(leaves) - 1


def _filled(form: Any, leaves: list[np.ndarray]) -> Codes:
    if isinstance(form, int):
        return leaves[form]
    if "dict" in form:
        return {name: _filled(value, leaves) for name, value in form["dict"].items()}
    return tuple(_filled(value, leaves) for value in form["tuple"])
