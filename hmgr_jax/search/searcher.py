"""Search with a run and an index of its codes: the best items for every query.

If the score is an inner product (``coarse_exact``), the index finds the items. Otherwise the index
finds a shortlist by the ``coarse`` vectors, and the model scores the pairs of the shortlist.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from hmgr_jax.data.pictures.equal import warn_equal
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.encoders import check_finite
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.leaves import by_name
from hmgr_jax.search import index_files, versions
from hmgr_jax.search.followed import Followed
from hmgr_jax.search.gallery import Gallery
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.rerank import CodeStore, score_candidates
from hmgr_jax.search.retrieved import load_run
from hmgr_jax.shapes import Float, Int
from hmgr_jax.training import config as configs

CANDIDATES = 100
"""Default number of items in a shortlist."""
PIXELS = ("size", "resize", "resample", "mean", "std")
"""How a picture is read; the other keys of ``data.pixels`` are of training."""


def model_key(retriever: Retriever) -> str:
    """16 hex digits that identify a model: weights, reading and scoring, calibration."""
    digest = hashlib.sha256(_scoring(retriever).encode())
    own = retriever.variables
    for name, leaf in by_name((own.params, own.stats, own.memory)).items():
        array = np.asarray(jax.device_get(leaf))
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def run_key(retriever: Retriever) -> str | None:
    """16 hex digits of scoring and the digests of the checkpoint; None without digests.

    Loading the run has checked the weights against these digests, so the weights need not be
    hashed again if the key is equal.
    """
    file = retriever.workdir / "digests" / f"{retriever.step}.json"
    if not file.is_file():
        return None
    about = _scoring(retriever).encode()
    return hashlib.sha256(about + file.read_bytes()).hexdigest()[:16]


def _scoring(retriever: Retriever) -> str:
    """All but the weights that vectors and scores depend on; how a run was trained is no part."""
    config, calibration = retriever.config, retriever.evaluator.calibration
    options = (key.removeprefix("model.") for key in configs.SCORING)
    pixels = config.data.get("pixels") or {}
    about = {
        "system": config.model.name,
        "scoring": {key: config.model[key] for key in options if key in config.model},
        "words": retriever.vocabulary.saved(),
        "max_words": retriever.max_words,
        "pixels": {key: pixels[key] for key in PIXELS if key in pixels},
        "calibration": calibration.fingerprint() if calibration is not None else "",
    }
    return json.dumps(about, sort_keys=True, default=str) + "\0"


def check_candidates(retriever: Retriever, candidates: int | None) -> None:
    """Check the length of a shortlist, None for the default.

    Raises:
        UserError: it is below 1, or the system finds the best items without a shortlist.
    """
    if candidates is None:
        return
    if candidates < 1:
        raise UserError(f"candidates must be at least 1, got {candidates}.")
    if retriever.model.coarse_exact:
        raise UserError(
            f"candidates is {candidates}, but {retriever.config.model.name} scores by an inner "
            "product, and the index finds the best items without a shortlist: leave it out."
        )


class Hit(NamedTuple):
    """One result."""

    number: int
    item: Item
    score: float


class Searcher:
    """An index with the run that made it."""

    def __init__(
        self,
        retriever: Retriever,
        index: Index,
        codes: CodeStore | None,
        followed: Followed | None = None,
    ) -> None:
        self.retriever, self.index, self.codes = retriever, index, codes
        self.followed = followed or Followed()
        self.version: Path | None = None
        """The folder of the version that was opened."""

    @classmethod
    def build(
        cls,
        retriever: Retriever,
        gallery: Gallery,
        *,
        engine: str | None = None,
        uri: str | None = None,
        candidates: int | None = None,
    ) -> Searcher:
        """Encode a gallery and build its index.

        Args:
            retriever: the run.
            gallery: the items.
            engine: see `Index.build`.
            uri: see `Index.build`.
            candidates: length of the shortlist, for a system that scores pairs (default 100).

        Raises:
            UserError: the items, the engine or the number of candidates are invalid.
        """
        check_candidates(retriever, candidates)
        return cls.of_codes(
            retriever, gallery, gallery.codes(retriever), engine, uri, candidates=candidates
        )

    @classmethod
    def of_codes(
        cls,
        retriever: Retriever,
        gallery: Gallery,
        codes: Any,
        engine: str | None = None,
        uri: str | None = None,
        *,
        candidates: int | None = None,
    ) -> Searcher:
        """Build the index of a gallery whose codes are known; see `build`."""
        model = retriever.model
        vectors = retriever.evaluator.vectors(retriever.variables, gallery.modality, codes)
        files = [Path(item.picture) for item in gallery.items if item.picture]
        if len(files) == len(gallery.items) and gallery.modality == "image":
            warn_equal(vectors, files, gallery.split or "the gallery")
        about: dict[str, Any] = {
            "workdir": str(retriever.workdir.resolve()),
            "system": retriever.config.model.name,
            "step": retriever.step,
            "modality": gallery.modality,
            "split": gallery.split,
            "run": run_key(retriever),
        }
        store = None
        if not model.coarse_exact:
            store, about["candidates"] = CodeStore.of(codes), candidates or CANDIDATES
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
    def open(
        cls,
        folder: str | Path,
        workdir: str | Path | None = None,
        retriever: Retriever | None = None,
    ) -> Searcher:
        """Load a saved index and its run.

        Args:
            folder: the index, or a name created by swap.
            workdir: the new folder of a run that was moved.
            retriever: the run, if it is loaded.

        Raises:
            UserError: see `Index.load` and `Retriever.load`; or the run was trained further.
        """
        folder = versions.current(folder)  # a name may be swapped later
        about = index_files.manifest_of(folder)["about"]
        if not {"workdir", "modality", "split"} <= about.keys():
            raise UserError(
                f"{folder} was not written by hmgr_jax.search index and names no run: open it with "
                "Index.load, or build an index with that command."
            )
        retriever = retriever or load_run(workdir or about["workdir"])
        same = about.get("run") is not None and about["run"] == run_key(retriever)
        key = about["model"] if same else model_key(retriever)
        return cls.read(folder, retriever, key)

    @classmethod
    def read(cls, folder: Path, retriever: Retriever, key: str) -> Searcher:
        """The version of an index in ``folder``, with the run that made it.

        Raises:
            UserError: see `Index.load`; or it was replaced meanwhile.
        """
        manifest = index_files.manifest_of(folder)
        index, codes = Index.load(folder, model=key, pinned=True), None
        if not retriever.model.coarse_exact:
            read = functools.partial(CodeStore.read, folder, index.size)
            codes = index_files.read_part(folder, read)
        followed = index_files.read_part(folder, lambda: Followed.read(folder))
        index_files.check_unchanged(folder, manifest)
        found = cls(retriever, index, codes, followed)
        found.version = folder
        return found

    def save(self, folder: str | Path, command: str = "") -> None:
        """Write the index, with the codes of a system that scores pairs; see `Index.save`."""

        def more(partial: Path) -> None:
            if self.codes is not None:
                self.codes.write(partial)
            if self.followed != Followed():
                self.followed.write(partial)

        self.index.save(folder, command=command, more=more)

    @property
    def modality(self) -> str:
        """The modality of the items."""
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
            modality: the modality of the queries.
            codes: the codes of the queries, from `hmgr_jax.search.gallery.encoded`.
            k: number of results.
            without: see `Index.search`.
            candidates: length of the shortlist, by default that of the index; with the size of the
                index the search is exhaustive.

        Raises:
            UserError: see `Index.search`; or the system does not score these two modalities.
        """
        retriever, model = self.retriever, self.retriever.model
        check_candidates(retriever, candidates)
        vectors = retriever.evaluator.vectors(
            retriever.variables, modality, codes, against=self.modality
        )
        if self.codes is None:
            return self.index.search(vectors, k, without)
        if modality == self.modality:
            name = retriever.config.model.name
            raise UserError(
                f"{name} scores {' with '.join(model.modalities)}, but the index and the query are "
                f"both {modality} items: use a query of the other modality."
            )
        wanted = self.index.about["candidates"] if candidates is None else candidates
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}.")
        found, _ = self.index.search(
            vectors, max(k, min(wanted, self.index.most(without))), without
        )
        # Ordered by number, so that among equal scores the lower number comes first.
        found = np.sort(found, axis=1)
        scores = score_candidates(
            model, retriever.variables, (modality, codes), (self.modality, self.codes), found
        )
        scores -= self._penalties(modality, codes, found)
        check_finite(scores, "The scores of query")
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def _penalties(self, modality: str, codes: Any, found: np.ndarray) -> np.ndarray:
        """What the calibration of the run takes from the scores of a shortlist."""
        evaluator = self.retriever.evaluator
        if evaluator.calibration is None:
            return np.zeros((1, 1), np.float32)
        own = evaluator.penalties(self.retriever.variables, modality, codes)
        stored = self.index.engine.vectors(found.reshape(-1))
        return own[:, None] + evaluator.calibration.stored_penalties(self.modality, stored).reshape(
            found.shape
        )

    def hits(self, numbers: np.ndarray, scores: np.ndarray) -> list[list[Hit]]:
        """The results, one list per query, best first."""
        return [
            [
                Hit(int(number), item, float(score))
                for number, item, score in zip(row, self.index.items(row), of_row, strict=True)
            ]
            for row, of_row in zip(numbers, scores, strict=True)
        ]
