"""Re-rank a shortlist: the stored codes of a gallery, and pair scores of queries with them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import NpyRows
from hmgr_jax.files.workdir import write_json_atomic, write_npy_atomic
from hmgr_jax.models.base import Model, Variables
from hmgr_jax.shapes import Float, Int

FOLDER, FORM = "codes", "form.json"
AT_ONCE = 16
"""Number of queries whose candidates are in memory at once."""
Codes = Any
"""A tree of dicts and tuples with arrays [n, ...]."""


def score_candidates(
    model: Model,
    variables: Variables,
    asked: tuple[str, Codes],
    gallery: tuple[str, CodeStore],
    candidates: Int[np.ndarray, "q C"],
) -> Float[np.ndarray, "q C"]:
    """Score every query with its own candidates by ``model.score``.

    Args:
        model: scores pairs.
        variables: the variables of the model.
        asked: modality and codes [q, ...] of the queries.
        gallery: modality and codes of the gallery.
        candidates: item numbers for every query.
    """
    count = len(candidates)
    scores = np.empty(candidates.shape, np.float32)
    size = min(AT_ONCE, 1 << (count - 1).bit_length())  # few shapes, to compile few programs
    for first in range(0, count, size):
        rows = np.minimum(np.arange(first, first + size), count - 1)  # the last block is padded
        queries = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], asked[1])
        found = gallery[1].gather(candidates[rows])
        some = _score(model, asked[0], gallery[0], variables, queries, found)
        scores[first : first + size] = np.asarray(some)[: count - first]
    return scores


@partial(jax.jit, static_argnums=(0, 1, 2))
def _score(
    model: Model, asked: str, searched: str, variables: Variables, queries: Codes, found: Codes
) -> jax.Array:
    """[q, C], one query at a time."""
    in_order = model.modalities.index(asked) < model.modalities.index(searched)

    def of_query(pair: tuple[Codes, Codes]) -> jax.Array:
        query = asked, jax.tree.map(lambda leaf: leaf[None], pair[0])
        if in_order:
            return model.score(variables, query, (searched, pair[1]))[0]
        return model.score(variables, (searched, pair[1]), query)[:, 0]

    return jax.lax.map(of_query, (queries, found))


class CodeStore:
    """The codes of a gallery, in memory or read from files on demand."""

    def __init__(self, form: Any, leaves: list[Any]) -> None:
        self._form, self._leaves = form, leaves

    @classmethod
    def of(cls, codes: Codes) -> CodeStore:
        """A store of codes in memory.

        Raises:
            TypeError: the codes have containers other than dicts and tuples.
        """
        leaves: list[Any] = []
        return cls(_number_leaves(codes, leaves), leaves)

    @classmethod
    def read(cls, folder: Path, count: int) -> CodeStore:
        """The store of ``count`` items that `write` wrote; its files stay open.

        Raises:
            UserError: a file cannot be read, or holds another number of items.
        """
        path = folder / FOLDER / FORM
        try:
            found = json.loads(path.read_bytes())
            form, files = found["form"], [f"{n}.npy" for n in range(found["leaves"])]
            _restore_leaves(form, files)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as why:
            raise UserError(f"{path} is damaged ({why!r:.80})") from None
        leaves = [NpyRows(folder / FOLDER / name) for name in files]
        for rows in leaves:
            if len(rows) != count:
                raise UserError(f"{rows.path} holds codes of {len(rows)} items, not of {count}")
        return cls(form, leaves)

    def write(self, folder: Path) -> None:
        """Write one ``.npy`` per array, and the structure of their tree."""
        (folder / FOLDER).mkdir()
        for number, leaf in enumerate(self._leaves):
            whole = leaf.gather(np.arange(len(leaf))) if isinstance(leaf, NpyRows) else leaf
            write_npy_atomic(folder / FOLDER / f"{number}.npy", whole)
        form = {"form": self._form, "leaves": len(self._leaves)}
        write_json_atomic(folder / FOLDER / FORM, form)

    def __len__(self) -> int:
        """The number of items, deleted ones too."""
        return len(self._leaves[0])

    def gather(self, numbers: Int[np.ndarray, "..."]) -> Codes:
        """Codes of these items, leaves [*shape of numbers, ...]."""
        flat = numbers.reshape(-1)
        some = [
            rows.gather(flat) if isinstance(rows, NpyRows) else rows[flat] for rows in self._leaves
        ]
        return _restore_leaves(self._form, [x.reshape(*numbers.shape, *x.shape[1:]) for x in some])


def _number_leaves(tree: Any, leaves: list[Any]) -> Any:
    """The tree with numbers instead of arrays, which are appended to ``leaves``."""
    if type(tree) is dict:
        return {"dict": {name: _number_leaves(value, leaves) for name, value in tree.items()}}
    if type(tree) is tuple:
        return {"tuple": [_number_leaves(value, leaves) for value in tree]}
    if not hasattr(tree, "shape"):
        raise TypeError(f"codes must be dicts and tuples of arrays, got {type(tree).__name__}")
    leaves.append(np.asarray(tree))
    return len(leaves) - 1


def _restore_leaves(form: Any, leaves: list[Any]) -> Codes:
    if isinstance(form, int):
        return leaves[form]
    if "dict" in form:
        return {name: _restore_leaves(value, leaves) for name, value in form["dict"].items()}
    return tuple(_restore_leaves(value, leaves) for value in form["tuple"])
