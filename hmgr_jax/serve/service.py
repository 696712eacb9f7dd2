"""Answer searches, many at once: encode their queries, combine them, search one snapshot."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from hmgr_jax.errors import UserError
from hmgr_jax.search import versions
from hmgr_jax.search.asking import unknown_words
from hmgr_jax.search.index import Item
from hmgr_jax.serve.encoding import QueryEncoder
from hmgr_jax.serve.snapshot import Filters, Snapshot


class Part(NamedTuple):
    """One query of a search: a sentence, a picture, or the id of an item."""

    kind: str
    """``text``, ``image`` or ``id``."""
    value: str | Image.Image
    weight: float = 1.0


@dataclass(frozen=True)
class Job:
    """A search of one snapshot."""

    snapshot: Snapshot
    parts: Sequence[Part]
    k: int
    filters: Filters = field(default_factory=Filters)


class Hit(NamedTuple):
    """A result."""

    item: Item
    score: float


class Service:
    """An index that is searched while it is replaced. `answer` is called by one thread."""

    def __init__(self, folder: Path, workdir: str | None = None) -> None:
        self.folder = folder
        self.snapshot = Snapshot.open(folder, workdir)
        self.encoder = QueryEncoder(self.snapshot.searcher.retriever)
        self.swaps, self._renewing = 0, threading.Lock()
        self.refused = self._refused_version = ""
        """Why the newest version of the index is not served."""

    @property
    def pairs(self) -> bool:
        """Whether the system scores pairs."""
        return self.snapshot.searcher.codes is not None

    def warm(self) -> int:
        """Compile the programs of queries; returns their number."""
        count = self.encoder.warm(self.snapshot.searcher.modality)
        if "text" in self.encoder.retriever.model.modalities:
            word = self.encoder.retriever.vocabulary.words[-1]
            self.answer([Job(self.snapshot, [Part("text", word)], 10)])
        return count

    def check(self, parts: Sequence[Part], snapshot: Snapshot) -> list[str]:
        """Notes on the queries of a search.

        Raises:
            UserError: a query cannot be answered.
        """
        retriever, notes = self.encoder.retriever, []
        modality, name = snapshot.searcher.modality, retriever.config.model.name
        if self.pairs and len(parts) > 1:
            raise UserError(
                f"{name} scores pairs, so that queries cannot be combined: send one query."
            )
        for part in parts:
            kind = {"text": "text", "image": "image", "id": modality}[part.kind]
            if kind not in retriever.model.modalities:
                raise UserError(f"{name} reads no {kind}: send a query of another kind.")
            if self.pairs and kind == modality:
                raise UserError(
                    f"{name} scores pairs of two kinds, but the index and the query are both "
                    f"{modality} items: send a query of the other kind."
                )
            if part.kind == "id" and part.value not in snapshot.numbers:
                raise UserError(f"The index holds no item {part.value!r}: send another id.")
            if part.kind == "image" and not self.encoder.reads_pictures():
                raise UserError(f"This {name} reads no picture files: send text or an id.")
        sentences = [str(part.value) for part in parts if part.kind == "text"]
        if unknown := unknown_words(retriever.vocabulary, sentences):
            named = ", ".join(map(repr, unknown))
            notes.append(f"The model does not know {named}, which it reads as an unknown word.")
        return notes

    def answer(self, jobs: Sequence[Job]) -> list[list[Hit] | Exception]:
        """The results of each job, best first, or why it failed."""
        found: list[list[Hit] | Exception] = [[] for _ in jobs]
        queries = self._encode(jobs)
        groups = defaultdict(list)
        for at, (job, query) in enumerate(zip(jobs, queries, strict=True)):
            if isinstance(query, Exception):
                found[at] = query
            elif self.pairs:
                found[at] = _guarded(self._of_pairs, job, query)
            elif job.filters.any() or any(part.kind == "id" for part in job.parts):
                found[at] = _guarded(self._alone, job, query)
            else:
                groups[id(job.snapshot)].append(at)
        for places in groups.values():
            together = _guarded(
                self._together, [jobs[n] for n in places], [queries[n] for n in places]
            )
            for place, at in enumerate(places):
                found[at] = together if isinstance(together, Exception) else together[place]
        return found

    def renew(self) -> bool:
        """Take over another version of the index if there is one; by any other thread."""
        with self._renewing:
            return self._renew(str(versions.current(self.folder)))

    def _renew(self, version: str) -> bool:
        try:
            if version in (self.snapshot.version, self._refused_version):
                return False
            self.snapshot = self.snapshot.renewed(Path(version))
        except (UserError, OSError) as error:
            self.refused, self._refused_version = str(error), version
            return False
        self.refused = self._refused_version = ""
        self.swaps += 1
        return True

    def _encode(self, jobs: Sequence[Job]) -> list[Any]:
        """For each job: codes of its only query if the system scores pairs, or else a vector."""
        against = self.snapshot.searcher.modality
        texts = {
            (at, n): str(part.value)
            for at, job in enumerate(jobs)
            for n, part in enumerate(job.parts)
            if part.kind == "text"
        }
        encoded = self._sentences(list(texts.values()), against) if texts else []
        made = dict(zip(texts, encoded, strict=True))
        return [
            _guarded(self._combined, job, {n: x for (own, n), x in made.items() if own == at})
            for at, job in enumerate(jobs)
        ]

    def _sentences(self, texts: list[str], against: str) -> list[Any]:
        """Vector and codes of each sentence, or why it has none."""
        try:
            return list(zip(*self.encoder.sentences(texts, against), strict=True))
        except Exception as error:
            if len(texts) == 1:
                return [error]
            return [found for text in texts for found in self._sentences([text], against)]

    def _combined(self, job: Job, made: dict[int, Any]) -> Any:
        """The sum of a job's queries, so that scores are the weighted means of theirs."""
        for failed in (found for found in made.values() if isinstance(found, Exception)):
            raise failed
        vectors, modality = [], job.snapshot.searcher.modality
        for n, part in enumerate(job.parts):
            if isinstance(part.value, Image.Image):
                made[n] = self.encoder.picture(part.value, modality)
            elif part.kind == "id":
                made[n] = job.snapshot.vector(part.value), None
            vectors.append(made[n][0])
        if self.pairs:
            return made[0][1]
        weights = np.array([part.weight for part in job.parts], np.float32)
        return (weights / np.abs(weights).sum()) @ np.stack(vectors)

    def _together(self, jobs: Sequence[Job], queries: Sequence[np.ndarray]) -> list[list[Hit]]:
        snapshot = jobs[0].snapshot
        k = max(job.k for job in jobs)
        numbers, scores = snapshot.search(np.stack(queries), k, Filters())
        return [
            _hits(snapshot, n[: job.k], s[: job.k])
            for job, n, s in zip(jobs, numbers, scores, strict=True)
        ]

    def _alone(self, job: Job, query: np.ndarray) -> list[Hit]:
        own = [job.snapshot.numbers[str(p.value)] for p in job.parts if p.kind == "id"]
        numbers, scores = job.snapshot.search(query[None], job.k, job.filters, frozenset(own))
        return _hits(job.snapshot, numbers[0], scores[0])

    def _of_pairs(self, job: Job, codes: Any) -> list[Hit]:
        searcher = job.snapshot.searcher
        (part,) = job.parts
        modality = "text" if part.kind == "text" else "image"
        most = len(searcher.index)
        k = most if job.filters.any() else min(job.k, most)
        numbers, scores = searcher.search(modality, jax.tree.map(np.asarray, codes), k)
        found = _hits(job.snapshot, numbers[0], scores[0])
        if job.filters.any():
            kept = {*job.snapshot.matching(job.filters).tolist()}
            found = [hit for hit in found if job.snapshot.numbers[hit.item.id] in kept]
        return found[: job.k]


def _guarded(function: Any, *given: Any) -> Any:
    """What the function returns, or its error: one request must not fail the others."""
    try:
        return function(*given)
    except Exception as error:
        return error


def _hits(snapshot: Snapshot, numbers: np.ndarray, scores: np.ndarray) -> list[Hit]:
    items = snapshot.searcher.index.items(numbers)
    return [Hit(item, float(score)) for item, score in zip(items, scores, strict=True)]


def described(snapshot: Snapshot, hits: Sequence[Hit], *, local: bool) -> dict[str, Any]:
    """The results for JSON; ``local`` tells the paths of picture files."""
    about = snapshot.searcher.index.about
    results = []
    for rank, (item, score) in enumerate(hits, start=1):
        row: dict[str, Any] = {"rank": rank, "score": score, **item._asdict()}
        if not local:
            row.pop("picture")
        if item.picture and not os.path.isfile(item.picture):
            row["missing"] = True
        row["date"] = snapshot.day(item.id)
        results.append(row)
    keys = ("system", "step", "modality", "engine", "model")
    version = snapshot.version if local else Path(snapshot.version).name
    return {
        **{key: about.get(key) for key in keys},
        "version": version,
        "count": len(snapshot.numbers),
        "results": results,
    }
