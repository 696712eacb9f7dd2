"""The constants of a model: computed from the training data, never trained.

They are saved beside the checkpoints, so that a resumed run uses the same constants and a search
does not need the training data. Texts are captions, or bags of words of a feature set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse
from flax.traverse_util import unflatten_dict

from hmgr_jax.data.generated.worlds.lexicon import SYNONYMS
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text import word_relations as relations
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.vectors import vectors_of_bags
from hmgr_jax.data.text.vocabulary import MARKS
from hmgr_jax.data.words import word_vectors
from hmgr_jax.errors import UserError
from hmgr_jax.files import digests
from hmgr_jax.files.arrays import read_npy, read_npz
from hmgr_jax.files.npy_rows import check_features
from hmgr_jax.files.workdir import replacing
from hmgr_jax.leaves import by_name
from hmgr_jax.models.base import Model
from hmgr_jax.models.corpus import Corpus
from hmgr_jax.shapes import Tree

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
    given = model.tables_of(_corpus_of(config, data())) if model.needs_tables else None
    key = jax.random.key(0)
    if not jax.tree.leaves(jax.eval_shape(model.init, key, given).tables):
        return None
    return jax.device_get(jax.jit(lambda own: model.init(key, own).tables)(given))


def _corpus_of(config: Any, data: DataSet) -> Corpus:
    texts = data.splits["train"].sources["text"]
    if isinstance(texts, CaptionSource):
        return TrainWords(config, data)
    return TrainBags(config, texts.gather(np.arange(len(texts)))["features"])


@dataclass(frozen=True)
class _TrainTexts:
    """Statistics of the texts of a train split that captions and bags of words share."""

    config: Any
    """The ``data`` part of a configuration."""

    @cached_property
    def _texts(self) -> scipy.sparse.csr_array:
        """Counts of words in texts, [texts, V]."""
        raise NotImplementedError

    def together(self, least: int, information: float) -> np.ndarray:
        """Pairs of words that share ``least`` texts with mutual information ``information``."""
        return relations.together(self._texts, least=least, information=information)

    def inverse_frequencies(self) -> np.ndarray:
        """Rarity of words in the training texts."""
        return relations.inverse_frequencies(self._texts)

    def _read_graph(self, size: int, nodes: str) -> np.ndarray | None:
        path = self.config.get("word_graph")
        return relations.read_neighbours(path, size, nodes) if path else None


@dataclass(frozen=True)
class TrainWords(_TrainTexts):
    """The captions of a data set's train split; see `hmgr_jax.models.corpus.Corpus`."""

    data: DataSet

    @cached_property
    def _texts(self) -> scipy.sparse.csr_array:
        captions: Any = self.data.splits["train"].sources["text"]
        return relations.caption_words(captions, len(self.data.vocabulary))

    def usable(self) -> np.ndarray:
        """Whether each word of the vocabulary occurs in a training caption, bool [V]."""
        found = np.asarray(self._texts.sum(axis=0)).ravel() > 0
        found[: len(MARKS)] = False
        return found

    def vectors(self, dim: int) -> np.ndarray:
        """Word vectors of ``data.vectors``, or learned from the training captions."""
        found = word_vectors(self.config, self.data, dim, learn=True)
        assert found is not None
        return found

    def triples(self) -> np.ndarray:
        """Related words of ``data.triples``; generated scenes have built-in synonyms."""
        if self.config.get("triples"):
            return relations.read_triples(self.config.triples, self.data.vocabulary)
        if self.config.source in ("worlds", "clips"):
            return relations.between_words(SYNONYMS, self.data.vocabulary)
        raise UserError(
            "model.word_relations has K, knowledge, but data.triples is empty: give a file of "
            "lines with head, relation and tail, or leave K out."
        )

    def given_graph(self) -> np.ndarray | None:
        """The edges of ``data.word_graph``."""
        return self._read_graph(len(self.data.vocabulary), relations.VOCABULARY_NODES)


@dataclass(frozen=True)
class TrainBags(_TrainTexts):
    """The texts of a feature set, which are vectors: a word is one of their V numbers."""

    bags: np.ndarray
    """float32 [n, V], of the train split."""

    @cached_property
    def _texts(self) -> scipy.sparse.csr_array:
        if self.bags.min() < 0:
            raise UserError(
                "word relations are counted in bags of words, but the texts' vectors hold "
                f"{self.bags.min():g}, which is no count: name a file of neighbours as "
                "data.word_graph, or use model.text_model=mlp_bow."
            )
        return scipy.sparse.csr_array(self.bags)

    def usable(self) -> np.ndarray:
        """Whether each number is nonzero in some training text, bool [V]."""
        return np.asarray(np.abs(self.bags).sum(axis=0) > 0)

    def vectors(self, dim: int) -> np.ndarray:
        """The rows of ``data.vectors`` (.npy), or vectors learned from the training texts."""
        path = self.config.vectors
        if path in ("none", "captions"):
            return vectors_of_bags(self._texts, dim)
        npy = Path(path).suffix == ".npy"
        found = read_npy(Path(path), "give an array of vectors.") if npy else None
        nodes = self.bags.shape[1]
        if found is None or found.shape[:-1] != (nodes,) or found.dtype.kind not in "fiu":
            what = "no .npy file" if found is None else f"an array of shape {found.shape}"
            raise UserError(
                f"data.vectors is {path}, {what}, but texts are vectors of {nodes} numbers: give "
                f"a .npy array with one vector per number, [{nodes}, D]."
            )
        check_features(found, lambda row: f"row {row} of {path}", "correct it.")
        return found.astype(np.float32)

    def triples(self) -> np.ndarray:
        """Raise `UserError`, since the meaning of the numbers is unknown."""
        raise UserError(
            "model.word_relations has K, knowledge of words, but the texts of this data are "
            "vectors without words: leave K out, or name a file of neighbours as data.word_graph."
        )

    def given_graph(self) -> np.ndarray | None:
        """The edges of ``data.word_graph``."""
        return self._read_graph(self.bags.shape[1], relations.BAG_NODES)


def keep_tables(workdir: Path, tables: Tree) -> None:
    """Write the constants of a run (arrays in nested dicts) to `FILE` atomically.

    If the file exists, the run is resumed and must use the same constants.

    Raises:
        UserError: the constants differ.
    """
    path = workdir / FILE
    if path.is_file():
        kept, now = by_name(read_tables(workdir)), by_name(tables)
        if kept.keys() != now.keys() or not all(np.array_equal(kept[k], now[k]) for k in now):
            raise UserError(
                f"The word graph of the model differs from {path}, with which the run began: "
                "restore data.word_graph, data.triples or data.vectors, or give another --workdir."
            )
        return
    with replacing(path) as file:
        np.savez_compressed(file, **by_name(tables))  # type: ignore[arg-type]


def read_tables(workdir: Path) -> Tree:
    """Read the constants that `keep_tables` wrote; raises `UserError` if they are damaged."""
    advice = "delete it to compute it again from the training data"
    digests.check_run(workdir, FILE, advice)
    return unflatten_dict(read_npz(workdir / FILE, f"{advice}."), sep="/")
