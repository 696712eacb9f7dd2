"""Cross-modal retrieval in JAX: HMGR and its peers, trained, evaluated and served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hmgr_jax.search.library import IndexingRetriever

__version__ = "0.1.0"
__all__ = ["list_models", "load"]


def load(workdir: str | Path) -> IndexingRetriever:
    """The dev-best model of a finished (or running) run, or a packed one.

    ``workdir`` is the folder of a run, a file that ``hmgr-jax convert pack`` wrote, or the name of
    a model that comes with the package (``flickr8k``).

        retriever = hmgr_jax.load("runs/worlds-hmgr")
        codes = retriever.encode("text", ["a red ball left of a blue cube"])

    A model that reads picture files also indexes a folder of them:

        index = hmgr_jax.load("flickr8k").index("holiday")
        hits = index.search("two dogs run on the beach", k=5)

    Raises:
        hmgr_jax.errors.UserError: ``workdir`` holds no whole checkpoint and is no such model.
    """
    from hmgr_jax.search.library import load as load_indexing

    return load_indexing(workdir)


def list_models() -> tuple[str, ...]:
    """Names of the systems that can be trained."""
    from hmgr_jax import models

    return models.list_models()
