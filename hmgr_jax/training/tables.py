"""The constants of a model: computed from the training data, never trained.

They are saved beside the checkpoints, so that a resumed run uses the same constants and a search
does not need the training data.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from hmgr_jax.data.split import DataSet
from hmgr_jax.errors import UserError
from hmgr_jax.models.base import Model
from hmgr_jax.shapes import Tree
from hmgr_jax.training.train_texts import corpus_of

FILE = "tables.npz"


class RunTables(NamedTuple):
    """The constants of a run's model, on the host; None where it has none."""

    train: Tree
    """In training."""
    test: Tree
    """At evaluation: the same object, or what another bank holds."""


def make_tables(model: Model, config: Any, data: Callable[[], DataSet]) -> Tree:
    """Compute the constants of ``model`` on the host; None if it has none.

    Args:
        model: fitted to its data.
        config: the ``data`` part of the configuration.
        data: opens the data set with its train split, if the model needs it.
    """
    given = model.tables_of(corpus_of(config, data())) if model.needs_tables else None
    key = jax.random.key(0)
    if not jax.tree.leaves(jax.eval_shape(model.init, key, given).tables):
        return None
    return jax.device_get(jax.jit(lambda own: model.init(key, own).tables)(given))


def keep_tables(workdir: Path, tables: Tree) -> None:
    """Write the constants of a run (arrays in nested dicts) to `FILE` atomically.

    If the file exists, the run is resumed and must use the same constants.

    Raises:
        UserError: the constants differ.
    """
    path = workdir / FILE
    if path.is_file():
        kept, now = _flat(read_tables(workdir)), _flat(tables)
        if kept.keys() != now.keys() or not all(np.array_equal(kept[k], now[k]) for k in now):
            raise UserError(
                f"The word graph of the model differs from {path}, with which the run began: "
                "restore data.word_graph, data.triples or data.vectors, or give another --workdir."
            )
        return
    temporary = path.with_name(f".{FILE}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **_flat(tables))  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tables(workdir: Path) -> Tree:
    """Read the constants that `keep_tables` wrote.

    Raises:
        UserError: the file is damaged.
    """
    found: dict[str, Any] = {}
    try:
        with (workdir / FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                *above, last = name.split("/")
                inner = found
                for key in above:
                    inner = inner.setdefault(key, {})
                inner[last] = arrays[name]
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{workdir / FILE} cannot be read ({error}): delete it to compute it again from the "
            "training data."
        ) from None
    return found


def _flat(tables: Tree) -> dict[str, np.ndarray]:
    """{keys with / between: array}."""
    leaves = jax.tree_util.tree_leaves_with_path(tables)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}
