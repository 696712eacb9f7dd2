"""A trained model in a program: ``hmgr_jax.load(workdir)``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.open import augmentation_of, open_data
from hmgr_jax.data.pictures.pixels import PictureFiles, PixelSource
from hmgr_jax.data.split import DataSet, Items, Split
from hmgr_jax.data.text.captions import CaptionSource, warn_cut, warn_unknown
from hmgr_jax.data.text.text_graph import open_sentences
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import packed as packed_runs
from hmgr_jax.evaluation.arrays import Arrays
from hmgr_jax.evaluation.encoders import check_finite
from hmgr_jax.evaluation.evaluate import Evaluator, Scored
from hmgr_jax.evaluation.finalized import finalize
from hmgr_jax.evaluation.judged import Judged
from hmgr_jax.evaluation.packed import Packed
from hmgr_jax.evaluation.tower_folder import read_folder
from hmgr_jax.evaluation.trained_run import read_run, replaced
from hmgr_jax.files.manifest import ENCODER
from hmgr_jax.interop.clip import is_towers
from hmgr_jax.interop.picture_encoder import EncodedPictures, Encoder
from hmgr_jax.models.base import Banks, Model, Variables
from hmgr_jax.shapes import Tree
from hmgr_jax.training.check import check
from hmgr_jax.training.tables import FILE, make_tables, read_tables

Retrieve = Callable[[Banks, str, ConfigDict, DataSet, Path], Tree]
"""Makes the tables of a named bank, see `hmgr_jax.search.retrieved.retrieved_tables`."""


class Retriever:
    """Encodes items, scores pairs and searches a gallery with the dev-best step of a run."""

    def __init__(
        self,
        workdir: Path,
        config: ConfigDict,
        model: Model,
        variables: Variables,
        vocabulary: Vocabulary,
        step: int,
        packed: Packed | None = None,
        fingerprint: str = "",
    ) -> None:
        self.fingerprint = fingerprint  # of the data of the training; empty if it is unknown
        self.workdir, self.config, self.step = workdir, config, step
        self.model, self.vocabulary = model, vocabulary
        evaluator = Evaluator.of(config, model, make_mesh(config.parallel.devices))
        self._packed_encoder = packed.encoder if packed is not None else None
        if packed is not None:
            self.evaluator, self.variables = evaluator.calibrated(packed.calibration), variables
        else:
            self.evaluator, self.variables = finalize(
                evaluator, variables, config, workdir, step, self._split
            )

    @classmethod
    def load(
        cls,
        workdir: str | Path,
        config: ConfigDict | None = None,
        change: Callable[[ConfigDict], ConfigDict] | None = None,
        *,
        retrieve: Retrieve | None = None,
    ) -> Retriever:
        """The dev-best step of the run in ``workdir`` (its newest if none was evaluated).

        ``workdir`` may be a packed file, the name of a model that comes with the package, or the
        folder of a CLIP or SigLIP as transformers saves it.

        ``config`` replaces the data, the scoring and the evaluation of the run; ``change`` edits
        the saved configuration. The parameters are always the trained ones. ``retrieve`` makes the
        tables of a model that reads retrieved captions.

        Raises:
            UserError: there is no checkpoint, it is damaged, ``config`` is of another system, or
                the model retrieves and ``retrieve`` is None.
        """
        file = packed_runs.path_of(workdir)
        place = file or Path(os.path.expanduser(workdir))

        def changed(saved: ConfigDict) -> ConfigDict:
            # A run on many devices can be used on any machine.
            saved.parallel.devices = min(saved.parallel.devices, len(jax.devices()))
            saved = replaced(saved, config, place) if config is not None else saved
            saved = change(saved) if change is not None else saved
            check(saved)
            return saved

        packed = packed_runs.read(file, changed) if file is not None else None
        if packed is not None:
            run = packed.run
        elif not (place / "checkpoints").is_dir() and is_towers(place):
            run = read_folder(place, changed)
        else:
            run = read_run(place, changed)
        saved, model, vocabulary = run.config, run.model, run.vocabulary
        if model.needs_tables and (place / FILE).is_file():
            tables = read_tables(place)
        elif model.banks is not None:
            if retrieve is None:
                raise UserError(
                    f"{place} holds a {saved.model.name}, which reads retrieved captions: "
                    "load it with hmgr_jax.load."
                )
            data = open_data(saved.data, vocabulary)
            tables = retrieve(model.banks, model.banks.test, saved, data, place)
        else:  # all splits are opened, because the held-out part of train depends on them
            tables = make_tables(model, saved.data, lambda: open_data(saved.data, vocabulary))
        variables = Variables(**run.state, tables=tables)
        known = "" if run.meta.get("imported") else run.meta.get("fingerprint", "")
        return cls(place, saved, model, variables, vocabulary, run.step, packed, known)

    def open(self, roles: Sequence[str]) -> DataSet:
        """The run's data set, with the vocabulary of the checkpoint."""
        return open_data(self.config.data, self.vocabulary, roles)

    def _split(self, role: str) -> Split:
        return self.open((role,)).splits[role]

    def evaluate(
        self,
        split: Split,
        protocols: Sequence[str],
        *,
        store: Path | None = None,
        tell: bool = False,
        more: Callable[[Scored], Mapping[str, float]] | None = None,
    ) -> dict[str, float]:
        """Metrics of a split; the options are those of `Evaluator.metrics`."""
        return self.evaluator.metrics(
            self.variables, split, protocols, store=store, tell=tell, more=more
        )

    def judged_scores(self, judged: Judged) -> np.ndarray:
        """Scores float32 [images of the split, judged captions], see `Judged.scores`."""
        return judged.scores(self.evaluator, self.variables, self.config.data, self.vocabulary)

    def store(self, role: str) -> Path | None:
        """The folder for the scores of a split until they are evaluated.

        It is None for systems whose score is an inner product, which takes seconds, and for a run
        that may only be read.
        """
        kept = not self.model.coarse_exact and os.access(self.workdir, os.W_OK)
        return self.workdir / "scores" / role if kept else None

    def encode(self, modality: str, items: Sequence[str | Path] | Mapping[str, np.ndarray]) -> Any:
        """Codes of items, one for each, in order.

        Args:
            modality: one of ``model.modalities``.
            items: sentences for ``"text"``, cut to ``max_words`` words; picture files for
                ``"image"`` of a system that was trained on pixels, or on features by an encoder
                of `hmgr_jax.prepare`; otherwise arrays by input name
                with a leading item axis, such as ``{"regions": [n, R, D]}``.

        Raises:
            UserError: another modality, inputs that do not fit the model, a picture that cannot be
                read, or sentences for a model of word graphs without an installed parser.
        """
        return self.evaluator.encode(self.variables, modality, self._source(modality, items))

    def read(self, sentences: Sequence[str]) -> Items:
        """Sentences as arrays for `encode`."""
        source = self.sentence_source(sentences)
        return source.gather(np.arange(len(source)))

    def relations(self, modality: str, items: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Weights [n, K, N, N] of the edges within items, see ``Model.relations``."""
        return self._of_items(self.model.relations, modality, items)

    def pool_weights(self, modality: str, items: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Weights [n, N] of the fragments of items, see ``Model.pool_weights``."""
        return self._of_items(self.model.pool_weights, modality, items)

    def _of_items(
        self,
        hook: Callable[[Variables, str, Tree], Any],
        modality: str,
        items: Mapping[str, np.ndarray],
    ) -> np.ndarray | None:
        """What a hook of the model gives for items."""
        source = self._source(modality, items)
        found = source.gather(np.arange(len(source)))
        wanted = {name: found[name] for name in self.model.inputs()[modality] if name in found}
        return jax.device_get(jax.jit(hook, static_argnums=1)(self.variables, modality, wanted))

    def _source(self, modality: str, items: Sequence[str | Path] | Mapping[str, np.ndarray]) -> Any:
        if modality not in self.model.modalities:
            known = ", ".join(self.model.modalities)
            raise UserError(f"{self.config.model.name} knows {known}, not {modality}.")
        if isinstance(items, Mapping):
            return Arrays(items, modality, self.model.inputs()[modality])
        if modality == "image":
            return self.picture_source(items)
        if modality != "text":
            raise UserError(f"{modality} items must be arrays by input name.")
        source = self.sentence_source(items)
        warn_unknown({"the request": source})
        return source

    def picture_source(self, items: Sequence[str | Path]) -> PixelSource | EncodedPictures:
        """Picture files as a source of items: pixels, or features by the encoder of the data.

        Raises:
            UserError: ``items`` is no list of files, or the system was trained on features whose
                encoder is unknown, changed or not installed.
        """
        given = _listed(items, str | Path, "a picture file")
        files, takes = [Path(item) for item in given], self.model.inputs()["image"]
        if "pixels" in takes:
            return PixelSource(PictureFiles(files), augmentation_of(self.config.data))
        return EncodedPictures(files, self.picture_encoder)

    @functools.cached_property
    def picture_encoder(self) -> Encoder:
        """What made the features of pictures that the system was trained on.

        Raises:
            UserError: it is unknown, changed or not installed.
        """
        if self._packed_encoder is not None:
            return self._packed_encoder()
        if not (self.workdir / ENCODER).is_file():
            takes = ", ".join(self.model.inputs()["image"])
            raise UserError(
                f"This {self.config.model.name} was trained on {takes} of images, not on pixels or "
                "features of prepare --encoder: prepare the same inputs, and give their split."
            )
        return Encoder.load(self.workdir)

    @property
    def max_words(self) -> int:
        """Most words of a sentence; with their end marks they fit the last bucket.

        Longer sentences are cut, as captions of more than ``data.max_words`` words are.
        """
        data = self.config.data
        return max(1, min(data.max_words, max(data.buckets) - self.vocabulary.num_ends))

    def sentence_source(self, items: Sequence[str | Path]) -> CaptionSource:
        """Sentences as a source of items; a long sentence is cut with a warning.

        Raises:
            UserError: ``items`` is no list of sentences, an item is empty or not text, or the model
                needs parsed sentences and no parser is installed.
        """
        sentences = _listed(items, str, "a sentence")
        for place, sentence in enumerate(sentences):
            if not sentence.strip():
                raise UserError(f"Sentence {place} is empty: leave it out.")
            if any("\ud800" <= letter <= "\udfff" for letter in sentence):
                raise UserError(
                    f"Sentence {place} is not UTF-8 text ({sentence!r:.60}): correct it."
                )
        wanted = self.model.inputs()["text"]
        source = open_sentences(sentences, self.vocabulary, wanted, self.max_words)
        warn_cut({"the request": source})
        return source

    def score(self, a: tuple[str, Any], b: tuple[str, Any]) -> np.ndarray:
        """Score matrix of (modality, codes) with (modality, codes), higher is better."""
        return self.evaluator.scores(self.variables, a[0], a[1], b[0], b[1])

    def search(
        self, query: tuple[str, Any], gallery: tuple[str, Any], k: int = 10
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` gallery items of every query: (item numbers [q, k], scores [q, k])."""
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}.")
        first = self.model.modalities.index(query[0]) < self.model.modalities.index(gallery[0])
        scores = self.score(query, gallery) if first else self.score(gallery, query).T
        check_finite(scores, "The scores of query")
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(scores, order, axis=1)


def _listed(items: Any, kind: Any, noun: str) -> list[Any]:
    """List items of a kind; ``UserError`` names the first other one by its position."""
    if isinstance(items, str | bytes | Path) or not isinstance(items, Iterable):
        raise UserError(f"Items must be a list with {noun} each, or arrays, got {items!r:.60}.")
    found = list(items)
    if not found:
        raise UserError(f"Items must be a list with at least {noun}, or arrays.")
    for place, item in enumerate(found):
        if not isinstance(item, kind):
            raise UserError(
                f"Item {place} is {item!r:.60}, a {type(item).__name__}, where {noun} was "
                "expected: correct it or leave it out."
            )
    return found
