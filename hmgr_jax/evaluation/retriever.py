"""A trained model in one's own program: ``hmgr_jax.load(workdir)``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.open import augmentation_of, open_data
from hmgr_jax.data.pictures.pixels import PictureFiles, PixelSource
from hmgr_jax.data.split import DataSet, Items, Split
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.pieces import restored
from hmgr_jax.data.text.sentences import open_sentences
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.arrays import Arrays
from hmgr_jax.evaluation.evaluate import Evaluator, Scored
from hmgr_jax.evaluation.judged import Judged
from hmgr_jax.models.base import Banks, Model, Plan, Variables
from hmgr_jax.shapes import Tree
from hmgr_jax.training import config as configs
from hmgr_jax.training.check import check
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import make_model
from hmgr_jax.training.tables import FILE, make_tables, read_tables

Retrieve = Callable[[Banks, str, ConfigDict, DataSet, Path], Tree]
"""Makes the tables of a bank by its name, see `hmgr_jax.search.retrieved.retrieved_tables`."""


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
    ) -> None:
        self.workdir, self.config, self.step = workdir, config, step
        self.model, self.vocabulary = model, vocabulary
        mesh = make_mesh(config.parallel.devices)
        self.evaluator = Evaluator.of(config, model, mesh)
        self.variables = self.evaluator.here(variables)
        if model.needs_train:
            train = self.open(("train",)).splits["train"]
            self.variables = self.evaluator.finalized(self.variables, train)

    @classmethod
    def load(
        cls,
        workdir: str | Path,
        config: ConfigDict | None = None,
        change: Callable[[ConfigDict], ConfigDict] | None = None,
        *,
        retrieve: Retrieve | None = None,
    ) -> Retriever:
        """The dev-best step of the run in ``workdir`` (its newest where none was evaluated).

        ``config`` replaces where the data lies, how pairs are scored and how that is evaluated;
        ``change`` edits what was saved. The parameters stay those that were trained. ``retrieve``
        makes the tables of a model that computes with retrieved captions.

        Raises:
            UserError: there is no checkpoint, it is damaged, ``config`` is of another system, or
                the model retrieves and ``retrieve`` is None.
        """
        workdir = Path(workdir)
        if not (workdir / "checkpoints").is_dir():
            raise UserError(f"{workdir} holds no checkpoints: give the --workdir of a trained run.")
        with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
            newest = checkpoints.newest()
            if newest is None:
                raise UserError(f"{workdir} holds no whole checkpoint: train there first.")
            meta = checkpoints.meta(newest)
            saved = saved_config(meta)
            # Any machine can use what was trained on many devices.
            saved.parallel.devices = min(saved.parallel.devices, len(jax.devices()))
            saved = _replaced(saved, config, workdir) if config is not None else saved
            saved = change(saved) if change is not None else saved
            check(saved)
            model = make_model(saved, saved_plan(meta, saved))
            abstract = jax.eval_shape(lambda: model.init(jax.random.key(0)))
            parts = {"params": abstract.params, "stats": abstract.stats, "memory": abstract.memory}
            best = checkpoints.best_step()
            state, _, step = checkpoints.restore(parts, best, partial=True)
        vocabulary = restored(meta["vocabulary"])
        if model.needs_tables and (workdir / FILE).is_file():
            tables = read_tables(workdir)
        elif model.banks is not None:
            if retrieve is None:
                raise UserError(
                    f"{workdir} holds a {saved.model.name}, which answers with retrieved captions: "
                    "load it by hmgr_jax.load."
                )
            data = open_data(saved.data, vocabulary)
            tables = retrieve(model.banks, model.banks.test, saved, data, workdir)
        else:  # of all splits, though made of train: what is held out of it depends on the others
            tables = make_tables(model, saved.data, lambda: open_data(saved.data, vocabulary))
        return cls(workdir, saved, model, Variables(**state, tables=tables), vocabulary, step)

    def open(self, roles: Sequence[str]) -> DataSet:
        """The run's data set, with the vocabulary of the checkpoint."""
        return open_data(self.config.data, self.vocabulary, roles)

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
        """Where the scores of train, dev or test are kept until they are evaluated.

        None for systems whose score is an inner product: these scores are made in seconds.
        """
        return None if self.model.coarse_exact else self.workdir / "scores" / role

    def encode(self, modality: str, items: Sequence[str | Path] | Mapping[str, np.ndarray]) -> Any:
        """Codes of items, one for each, in order.

        Args:
            modality: one of ``model.modalities``.
            items: sentences for ``"text"``, of which the first ``max_words`` words count; files of
                pictures for ``"image"`` of a system that was trained on pixels; otherwise arrays
                by input name with a leading item axis, such as ``{"regions": [n, R, D]}``.

        Raises:
            UserError: another modality, inputs that do not fit the model, a picture that cannot be
                read, or sentences for a model of word graphs where their parser is not installed.
        """
        return self.evaluator.encode(self.variables, modality, self._source(modality, items))

    def read(self, sentences: Sequence[str]) -> Items:
        """Sentences as the arrays that ``encode`` takes as well."""
        source = self.sentence_source(sentences)
        return source.gather(np.arange(len(source)))

    def relations(self, modality: str, items: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Weights [n, K, N, N] of the edges within items, see ``Model.relations``."""
        source = self._source(modality, items)
        found = source.gather(np.arange(len(source)))
        wanted = {name: found[name] for name in self.model.inputs()[modality] if name in found}
        relations = jax.jit(self.model.relations, static_argnums=1)
        return jax.device_get(relations(self.variables, modality, wanted))

    def _source(self, modality: str, items: Sequence[str | Path] | Mapping[str, np.ndarray]) -> Any:
        if modality not in self.model.modalities:
            known = ", ".join(self.model.modalities)
            raise UserError(f"{self.config.model.name} knows {known}, not {modality}.")
        if isinstance(items, Mapping):
            return Arrays(items, modality, self.model.inputs()[modality])
        if "pixels" in self.model.inputs()[modality]:
            return self.picture_source(items)
        if modality != "text":
            raise UserError(f"{modality} items are arrays by name.")
        return self.sentence_source(items)

    def picture_source(self, items: Sequence[str | Path]) -> PixelSource:
        """Files of pictures as a source of items, for a system that was trained on pixels.

        Raises:
            UserError: ``items`` is no list of files.
        """
        if isinstance(items, str | Path) or not len(items):
            raise UserError("image items are a list of at least one file of a picture, or arrays.")
        files = PictureFiles([Path(item) for item in items])
        return PixelSource(files, augmentation_of(self.config.data))

    @property
    def max_words(self) -> int:
        """Words of a sentence that are read: with ``<start>`` and ``<end>`` the last bucket holds.

        Longer sentences are cut, as captions of more than ``data.max_words`` words are.
        """
        data = self.config.data
        return max(1, min(data.max_words, max(data.buckets) - 2))

    def sentence_source(self, items: Sequence[str | Path]) -> CaptionSource:
        """Sentences as a source of items; a long one is cut, with a warning.

        Raises:
            UserError: ``items`` is no list of sentences, one is empty, or they have to be parsed
                and no parser is installed.
        """
        if isinstance(items, str) or not len(items):
            raise UserError("text items are a list of at least one sentence.")
        sentences = [str(item) for item in items]
        for place, sentence in enumerate(sentences):
            if not sentence.strip():
                raise UserError(f"Sentence {place} is empty: leave it out.")
        tokens, limit = [self.vocabulary.tokenize(text) for text in sentences], self.max_words
        longest = max(range(len(tokens)), key=lambda place: len(tokens[place]))
        if len(tokens[longest]) > limit:
            warnings.warn(
                f"sentence {longest} has {len(tokens[longest])} words, but this run reads the "
                f"first {limit} of a sentence (data.max_words, data.buckets): the rest is left out",
                RuntimeWarning,
                stacklevel=3,
            )
        return open_sentences(sentences, self.vocabulary, self.model.inputs()["text"], limit)

    def score(self, a: tuple[str, Any], b: tuple[str, Any]) -> np.ndarray:
        """Score matrix of (modality, codes) with (modality, codes), higher is better."""
        return self.evaluator.scores(self.variables, a[0], a[1], b[0], b[1])

    def search(
        self, query: tuple[str, Any], gallery: tuple[str, Any], k: int = 10
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` gallery items of every query: (item numbers [q, k], scores [q, k])."""
        if k < 1:
            raise UserError(f"k must be at least 1, it is {k}.")
        first = self.model.modalities.index(query[0]) < self.model.modalities.index(gallery[0])
        scores = self.score(query, gallery) if first else self.score(gallery, query).T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(scores, order, axis=1)


def _replaced(saved: ConfigDict, config: ConfigDict, workdir: Path) -> ConfigDict:
    """``saved`` with data, scoring and evaluation of ``config``; says what that changes."""
    if config.model.name != saved.model.name:
        raise UserError(
            f"{workdir} holds a {saved.model.name}, not a {config.model.name}: give its own "
            "recipe or another --workdir."
        )
    before = configs.plain(saved)
    saved.data, saved.eval, saved.parallel = config.data, config.eval, config.parallel
    for key in (k.removeprefix("model.") for k in configs.SCORING):
        if key in config.model:
            saved.model[key] = config.model[key]
    kept = configs.differences(configs.plain(config), configs.plain(saved))
    if kept:
        warnings.warn(
            "the run stays as it was trained, and the recipe has no effect on: "
            f"{configs.format_differences(kept)}",
            stacklevel=3,
        )
    changed = configs.differences(before, configs.plain(saved))
    if changed:
        warnings.warn(
            "the recipe changes what the run was trained with: "
            f"{configs.format_differences(changed)}",
            stacklevel=3,
        )
    return saved


def saved_plan(meta: Mapping[str, Any], config: ConfigDict) -> Plan:
    """The plan that a saved model was fitted to, from what lies beside its state."""
    features = {
        m: {name: tuple(shape) for name, shape in inputs.items()}
        for m, inputs in meta["features"].items()
    }
    steps, classes = config.train.steps, meta.get("classes", 0)  # older runs have none
    words = len(restored(meta["vocabulary"]))
    return Plan(steps, meta["steps_per_epoch"], words, features, classes)


def saved_config(meta: Mapping[str, Any]) -> ConfigDict:
    """The configuration of a run; keys that did not exist when it was made have their defaults."""
    saved = with_tuples(meta["config"])
    config = configs.recipe(saved["name"], saved["model"]["name"]).unlock()
    with config.ignore_type():
        config.update(saved)
    return config


def with_tuples(tree: Any) -> Any:
    """JSON's lists back to the tuples that configurations hold."""
    if isinstance(tree, Mapping):
        return {k: with_tuples(v) for k, v in tree.items()}
    return tuple(with_tuples(v) for v in tree) if isinstance(tree, list) else tree
