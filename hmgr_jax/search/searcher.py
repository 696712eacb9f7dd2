"""A run and an index of what it encoded: queries in, the best items out.

Where the score is an inner product (``coarse_exact``) the index answers alone. Else it gives a
shortlist by the ``coarse`` vectors, and the model scores those pairs itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.leaves import by_name
from hmgr_jax.search.code_store import CodeStore
from hmgr_jax.search.gallery import Gallery
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.rerank import score_candidates
from hmgr_jax.shapes import Float, Int
from hmgr_jax.training import config as configs

CANDIDATES = 100
"""Items of a shortlist, where nobody says."""


def model_key(retriever: Retriever) -> str:
    """16 hex digits of what makes vectors: system and configuration, step, weights."""
    digest = hashlib.sha256()
    digest.update(f"{configs.config_hash(retriever.config)} {retriever.step}\0".encode())
    own = retriever.variables
    for name, leaf in by_name((own.params, own.stats, own.memory)).items():
        array = np.asarray(jax.device_get(leaf))
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


class Hit(NamedTuple):
    """An item that was found."""

    number: int
    item: Item
    score: float


class Searcher:
    """Searches one index with the run that made it."""

    def __init__(self, retriever: Retriever, index: Index, codes: CodeStore | None) -> None:
        self.retriever, self.index, self.codes = retriever, index, codes

    @classmethod
    def build(
        cls,
        retriever: Retriever,
        gallery: Gallery,
        *,
        engine: str | None = None,
        uri: str | None = None,
        candidates: int = CANDIDATES,
    ) -> Searcher:
        """Encode a gallery and put it into an index.

        Args:
            retriever: the run.
            gallery: what is to be searched.
            engine: see `Index.build`.
            uri: see `Index.build`.
            candidates: of a shortlist, where the system scores pairs.

        Raises:
            UserError: the items, the engine or the number of candidates do not fit.
        """
        if candidates < 1:
            raise UserError(f"A shortlist has at least 1 candidate, not {candidates}.")
        codes, model = gallery.codes(retriever), retriever.model
        vectors = retriever.evaluator.vectors(retriever.variables, gallery.modality, codes)
        about: dict[str, Any] = {
            "workdir": str(retriever.workdir.resolve()),
            "system": retriever.config.model.name,
            "step": retriever.step,
            "modality": gallery.modality,
            "split": gallery.split,
        }
        store = None
        if not model.coarse_exact:
            store, about["candidates"] = CodeStore.of(codes), candidates
        index = Index.build(
            vectors,
            gallery.items,
            model=model_key(retriever),
            engine=engine,
            uri=uri,
            about=about,
        )
        return cls(retriever, index, store)

    @classmethod
    def open(cls, folder: str | Path, workdir: str | Path | None = None) -> Searcher:
        """An index that `save` wrote, with its run (``workdir`` where that has moved).

        Raises:
            UserError: see `Index.load` and `Retriever.load`; the run has gone on since.
        """
        folder = Path(folder).resolve()  # what a name points to now, whatever it does later
        about = Index.about_of(folder)
        if not {"workdir", "modality", "split"} <= about.keys():
            raise UserError(
                f"{folder} was not made by hmgr_jax.search index, and names no run: search it by "
                "Index.load, or make one by that command."
            )
        retriever = Retriever.load(workdir or about["workdir"])
        index = Index.load(folder, model=model_key(retriever))
        codes = None if retriever.model.coarse_exact else CodeStore.read(folder)
        return cls(retriever, index, codes)

    def save(self, folder: str | Path, command: str = "") -> None:
        """Write the index, with the codes of a system that scores pairs; see `Index.save`."""
        self.index.save(folder, command=command, more=self.codes.write if self.codes else None)

    @property
    def modality(self) -> str:
        """Of what is searched."""
        return self.index.about["modality"]

    def search(
        self,
        modality: str,
        codes: Any,
        k: int = 10,
        *,
        without: list[str | None] | None = None,
        candidates: int | None = None,
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """The best ``k`` of every query: numbers int64 [q, k] and scores float32 [q, k].

        Args:
            modality: of the queries.
            codes: of the queries, as `hmgr_jax.search.gallery.encoded` makes them.
            k: how many.
            without: see `Index.search`.
            candidates: of the shortlist; by default what the index was built for. All that there
                are make an exhaustive search.

        Raises:
            UserError: as `Index.search`, or the system does not score these two modalities.
        """
        retriever, model = self.retriever, self.retriever.model
        vectors = retriever.evaluator.vectors(retriever.variables, modality, codes)
        if self.codes is None:
            return self.index.search(vectors, k, without)
        if modality == self.modality:
            name = retriever.config.model.name
            raise UserError(
                f"{name} scores {' with '.join(model.modalities)}, and this index holds "
                f"{modality} items too: ask it with the other."
            )
        wanted = self.index.about["candidates"] if candidates is None else candidates
        if wanted < 1 or k < 1:
            what = "A shortlist has at least 1 candidate" if wanted < 1 else "k must be at least 1"
            raise UserError(f"{what}, not {min(wanted, k)}: raise it.")
        found, _ = self.index.search(
            vectors, max(k, min(wanted, self.index.most(without))), without
        )
        # In the order of numbers, of which equal scores then stand in the lower first.
        found = np.sort(found, axis=1)
        scores = score_candidates(
            model, retriever.variables, (modality, codes), (self.modality, self.codes), found
        )
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def hits(self, numbers: np.ndarray, scores: np.ndarray) -> list[list[Hit]]:
        """What was found, a list a query, best first."""
        return [
            [
                Hit(int(number), item, float(score))
                for number, item, score in zip(row, self.index.items(row), of_row, strict=True)
            ]
            for row, of_row in zip(numbers, scores, strict=True)
        ]
