"""The constants that a model computes with: made of the training data, never trained or saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
import scipy.sparse

from hmgr_jax.data import word_relations as relations
from hmgr_jax.data.open import word_vectors
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.vocabulary import MARKS
from hmgr_jax.errors import UserError
from hmgr_jax.models.base import Model
from hmgr_jax.shapes import Tree


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
            return relations.synonyms_of_worlds(self.data.vocabulary)
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


def make_tables(model: Model, config: Any, data: Callable[[], DataSet]) -> Tree:
    """The constants of ``model`` on the host; None where it has none.

    Args:
        model: fitted to its data.
        config: the ``data`` part of the configuration.
        data: opens the data set with its train split, where the model asks for it.
    """
    given = model.tables_of(TrainWords(config, data())) if model.needs_tables else None
    key = jax.random.key(0)
    if not jax.tree.leaves(jax.eval_shape(model.init, key, given).tables):
        return None
    return jax.device_get(jax.jit(lambda own: model.init(key, own).tables)(given))
