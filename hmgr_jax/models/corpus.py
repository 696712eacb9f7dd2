"""The training texts, from which `Hooks.tables_of` computes a model's constant tables."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from hmgr_jax.shapes import Float, Int


@runtime_checkable
class Corpus(Protocol):
    """Statistics of the texts of the training split; V is the size of the vocabulary."""

    def usable(self) -> np.ndarray:
        """Bool [V], True for words, False for special tokens."""
        ...

    def vectors(self, dim: int) -> Float[np.ndarray, "V dim"]:
        """Word vectors of ``data.vectors``, or learned from the captions."""
        ...

    def together(self, least: int, information: float) -> Int[np.ndarray, "E 2"]:
        """Pairs of words that share ``least`` texts and have mutual information ``information``."""
        ...

    def triples(self) -> Int[np.ndarray, "E 2"]:
        """Pairs of words joined by a relation of ``data.triples``."""
        ...

    def given_graph(self) -> Int[np.ndarray, "E 2"] | None:
        """The edges of ``data.word_graph``; None if it names no file."""
        ...

    def inverse_frequencies(self) -> Float[np.ndarray, " V"]:
        """Rarity of words, see `hmgr_jax.data.text.word_relations.inverse_frequencies`."""
        ...
