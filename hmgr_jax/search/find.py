"""Search the pictures of a folder without training: ``hmgr-jax search find "a dog" --in DIR``."""

from __future__ import annotations

import sys
from pathlib import Path

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.search.folder import FolderVectors, vectors_of
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.index_engine import FLAT
from hmgr_jax.search.retrieved import load_run
from hmgr_jax.search.searcher import Searcher, model_key

MODEL = "flickr8k"
"""The model that comes with the package."""
NAMED = 5
"""Pictures that are named in a message."""


def searcher_of(folder: Path, model: str) -> Searcher:
    """A searcher of the pictures in a folder, which encodes those that are new or changed.

    Args:
        folder: the pictures, also in subfolders.
        model: a model that comes with the package, a packed file, or the folder of a run.

    Raises:
        UserError: the model cannot be loaded, does not read pictures or scores pairs; or the folder
            holds no readable picture.
    """
    retriever = load_run(model)
    _check(retriever, model)
    found = vectors_of(folder, retriever)
    _tell(folder, found)
    items = [Item(name, "", str((folder / name).resolve()), name) for name in found.names]
    about = {
        "workdir": str(retriever.workdir.resolve()),
        "system": retriever.config.model.name,
        "step": retriever.step,
        "modality": "image",
        "split": "",
    }
    key = model_key(retriever)
    index = Index.build(found.vectors, items, model=key, engine=FLAT, about=about)
    return Searcher(retriever, index, None)


def _check(retriever: Retriever, model: str) -> None:
    if not {"image", "text"} <= set(retriever.model.modalities):
        raise UserError(
            f"{model} knows {', '.join(retriever.model.modalities)}, not image and text: give a "
            "model of pictures and sentences."
        )
    if not retriever.model.coarse_exact:
        raise UserError(
            f"{model} is a {retriever.config.model.name}, which scores pairs: give a system with "
            "one vector per item, or use search index and search query."
        )


def _tell(folder: Path, found: FolderVectors) -> None:
    """What was done, on standard error."""
    done = f"{found.encoded:,} encoded now" + (f", {found.gone:,} gone" if found.gone else "")
    print(f"{folder}: {len(found.names):,} pictures ({done})", file=sys.stderr)
    if found.broken:
        named = ", ".join(found.broken[:NAMED]) + (", ..." if len(found.broken) > NAMED else "")
        print(f"left out: {len(found.broken):,} that cannot be read: {named}", file=sys.stderr)
