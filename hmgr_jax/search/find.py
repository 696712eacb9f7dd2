"""Search the pictures of a folder without training: ``hmgr-jax search find "a dog" --in DIR``."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from hmgr_jax.data.pictures.files import warn_left_out
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import packed
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.workdir import cache_folder, lock
from hmgr_jax.search import following
from hmgr_jax.search.index_engine import FLAT
from hmgr_jax.search.retrieved import load_run
from hmgr_jax.search.searcher import Searcher, model_key
from hmgr_jax.terminal import escape_controls


def load_model(model: str) -> Retriever:
    """A model that can search a folder.

    ``model`` comes with the package, or is a packed file, the folder of a run, or that of a CLIP.

    Raises:
        UserError: it cannot be loaded, or does not read pictures and sentences.
    """
    if packed.path_of(model) is None and not Path(model).exists():
        raise UserError(
            f"There is no model {model}: give {' or '.join(packed.included())}, a packed file, the "
            "folder of a run, or that of a CLIP."
        )
    retriever = load_run(model)
    if not {"image", "text"} <= set(retriever.model.modalities):
        raise UserError(
            f"{model} knows {', '.join(retriever.model.modalities)}, not image and text: give a "
            "model of pictures and sentences."
        )
    return retriever


def searcher_of(folder: Path, retriever: Retriever) -> Searcher:
    """A searcher of the pictures in a folder; those that are new or changed are encoded.

    The index of each folder and model is kept in the user's folder of caches. A damaged one is
    built again.

    Args:
        folder: the pictures, also in subfolders.
        retriever: from `load_model`.

    Raises:
        UserError: the folder holds no readable picture, or another command is encoding it.
    """
    place = f"{folder.resolve()}\0{model_key(retriever)}"
    own = cache_folder() / "folders" / hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
    with lock(own, "--in"):
        index, encoded, gone = own / "index", 0, 0
        if known := _opens(index, retriever):
            changes = following.update(index, retriever=retriever)
            encoded, gone = len(changes.added) + len(changes.changed), len(changes.gone)
        else:
            shutil.rmtree(index, ignore_errors=True)
            made = following.build(retriever, [folder], own / "encoded", engine=FLAT)
            made.save(index, "hmgr-jax search find")
            shutil.rmtree(own / "encoded", ignore_errors=True)
            encoded = len(made.index)
        searcher = Searcher.open(index, None, retriever)
    count, broken = len(searcher.index), sorted(searcher.followed.broken)
    done = f"{encoded:,} encoded now" + (f", {gone:,} gone" if gone else "")
    print(escape_controls(f"{folder}: {count:,} pictures ({done})"), file=sys.stderr)
    if known:  # else building has told
        warn_left_out(broken, count + len(broken), str(folder))
    return searcher


def _opens(index: Path, retriever: Retriever) -> bool:
    try:
        Searcher.open(index, None, retriever).index.close()
    except UserError:
        return False
    return True
