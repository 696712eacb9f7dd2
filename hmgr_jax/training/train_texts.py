"""The texts of a training split, as models ask for them: captions, or bags of a feature set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from hmgr_jax.data.generated.worlds.lexicon import SYNONYMS
from hmgr_jax.data.open import word_vectors
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text import word_relations as relations
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.vectors import vectors_of_bags
from hmgr_jax.data.text.vocabulary import MARKS
from hmgr_jax.errors import UserError
from hmgr_jax.models.corpus import Corpus


@dataclass(frozen=True)
class TrainWords:
    """The texts of a data set's train split; see `hmgr_jax.models.corpus.Corpus`."""

    config: Any
    """The ``data`` part of a configuration."""
    data: DataSet

    @cached_property
    def _texts(self) -> scipy.sparse.csr_array:
        return relations.caption_words(
            self.data.splits["train"].sources["text"],  # type: ignore[arg-type]
            len(self.data.vocabulary),
        )

    def usable(self) -> np.ndarray:
        """The words of the vocabulary that stand in a training caption."""
        found = np.asarray(self._texts.sum(axis=0)).ravel() > 0
        found[: len(MARKS)] = False
        return found

    def vectors(self, dim: int) -> np.ndarray:
        """Those of ``data.vectors``, or learnt from the training captions."""
        found = word_vectors(self.config, self.data, dim, learn=True)
        assert found is not None
        return found

    def together(self, least: int, information: float) -> np.ndarray:
        """By captions."""
        return relations.together(self._texts, least=least, information=information)

    def triples(self) -> np.ndarray:
        """By ``data.triples``; generated scenes know synonyms without a file.

        Raises:
            UserError: there is no file, or it is malformed.
        """
        if self.config.get("triples"):
            return relations.read_triples(self.config.triples, self.data.vocabulary)
        if self.config.source in ("worlds", "clips"):
            return relations.between_words(SYNONYMS, self.data.vocabulary)
        raise UserError(
            "model.word_relations has K, knowledge, but data.triples names no file: give one of "
            "lines with head, relation and tail, or leave K out."
        )

    def given_graph(self) -> np.ndarray | None:
        """By ``data.word_graph``."""
        if not self.config.get("word_graph"):
            return None
        return relations.read_neighbours(self.config.word_graph, len(self.data.vocabulary))

    def inverse_frequencies(self) -> np.ndarray:
        """Over training captions."""
        return relations.inverse_frequencies(self._texts)


@dataclass(frozen=True)
class TrainBags:
    """The same of a feature set, whose texts are vectors: a word is one of their V numbers."""

    config: Any
    """The ``data`` part of a configuration."""
    bags: np.ndarray
    """float32 [n, V], of the train split."""

    @cached_property
    def _texts(self) -> scipy.sparse.csr_array:
        if self.bags.min() < 0:
            raise UserError(
                "the relations of words are counted in the texts' vectors, but these hold "
                f"{self.bags.min():g} and are no bags of words: name a file of neighbours as "
                "data.word_graph, or take model.text_model=mlp_bow."
            )
        return scipy.sparse.csr_array(self.bags)

    def usable(self) -> np.ndarray:
        """The numbers that are not zero in all training texts."""
        return np.asarray(np.abs(self.bags).sum(axis=0) > 0)

    def vectors(self, dim: int) -> np.ndarray:
        """The rows of ``data.vectors`` (.npy), or learnt from the training texts.

        Raises:
            UserError: the file is none, or has another number of rows.
        """
        path = self.config.vectors
        if path in ("none", "captions"):
            return vectors_of_bags(self._texts, dim)
        try:
            found = np.load(path, allow_pickle=False) if Path(path).suffix == ".npy" else None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): give an array of vectors.") from None
        nodes = self.bags.shape[1]
        if found is None or found.ndim != 2 or len(found) != nodes:
            what = "no .npy file" if found is None else f"an array of shape {found.shape}"
            raise UserError(
                f"data.vectors is {path}, {what}, but texts are vectors of {nodes} numbers: give "
                f"a .npy array with a vector for each, [{nodes}, D]."
            )
        return found.astype(np.float32)

    def together(self, least: int, information: float) -> np.ndarray:
        """By training texts."""
        return relations.together(self._texts, least=least, information=information)

    def triples(self) -> np.ndarray:
        """None: nobody knows what the numbers mean.

        Raises:
            UserError: always.
        """
        raise UserError(
            "model.word_relations has K, knowledge of words, but the texts of this data are "
            "vectors without words: leave K out, or name a file of neighbours as data.word_graph."
        )

    def given_graph(self) -> np.ndarray | None:
        """By ``data.word_graph``."""
        if not self.config.get("word_graph"):
            return None
        nodes = self.bags.shape[1]
        return relations.read_neighbours(self.config.word_graph, nodes, relations.BAG_NODES)

    def inverse_frequencies(self) -> np.ndarray:
        """Over training texts."""
        return relations.inverse_frequencies(self._texts)


def corpus_of(config: Any, data: DataSet) -> Corpus:
    """The training texts of a data set, captions or bags; ``config`` is its ``data`` part."""
    texts = data.splits["train"].sources["text"]
    if isinstance(texts, CaptionSource):
        return TrainWords(config, data)
    return TrainBags(config, texts.gather(np.arange(len(texts)))["features"])
