"""Search the pictures of a folder without training: ``hmgr-jax search find "a dog" --in DIR``."""

from __future__ import annotations

import sys
from pathlib import Path

from hmgr_jax.data.pictures.equal import warn_equal
from hmgr_jax.data.pictures.files import warn_left_out
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import packed
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.search.folder import FolderVectors, vectors_of
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.index_engine import FLAT
from hmgr_jax.search.retrieved import load_run
from hmgr_jax.search.searcher import Searcher, model_key
from hmgr_jax.terminal import escape_controls


def load_model(model: str) -> Retriever:
    """A model that can search a folder.

    ``model`` comes with the package, or is a packed file, the folder of a run, or that of a CLIP.

    Raises:
        UserError: it cannot be loaded, does not read pictures and sentences, or scores pairs.
    """
    if packed.path_of(model) is None and not Path(model).exists():
        raise UserError(
            f"There is no model {model}: give {' or '.join(packed.included())}, a packed file, the "
            "folder of a run, or that of a CLIP."
        )
    retriever = load_run(model)
    _check(retriever, model)
    return retriever


def searcher_of(folder: Path, retriever: Retriever) -> Searcher:
    """A searcher of the pictures in a folder, which encodes those that are new or changed.

    Args:
        folder: the pictures, also in subfolders.
        retriever: from `load_model`.

    Raises:
        UserError: the folder holds no readable picture.
    """
    found = vectors_of(folder, retriever)
    _tell(folder, found)
    warn_equal(found.vectors, [folder / name for name in found.names], str(folder))
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
    print(escape_controls(f"{folder}: {len(found.names):,} pictures ({done})"), file=sys.stderr)
    warn_left_out(found.broken, len(found.names) + len(found.broken), str(folder))
