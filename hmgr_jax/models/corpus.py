"""What constant tables of a model may be made of: the words of the training data."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from hmgr_jax.shapes import Float, Int


@runtime_checkable
class Corpus(Protocol):
    """The texts of the training split, as far as a model asks for them."""

    def usable(self) -> np.ndarray:
        """Which of the V nodes are words: bool [V], not the marks of a vocabulary."""
        ...

    def vectors(self, dim: int) -> Float[np.ndarray, "V dim"]:
        """Word vectors: those of ``data.vectors``, learnt from captions where it names none."""
        ...

    def together(self, least: int, information: float) -> Int[np.ndarray, "E 2"]:
        """Words in at least so many common texts, with so much mutual information."""
        ...

    def triples(self) -> Int[np.ndarray, "E 2"]:
        """Words that ``data.triples`` joins."""
        ...

    def given_graph(self) -> Int[np.ndarray, "E 2"] | None:
        """The edges of ``data.word_graph``; None where it names no file."""
        ...

    def inverse_frequencies(self) -> Float[np.ndarray, " V"]:
        """How rare words are, see `hmgr_jax.data.text.word_relations.inverse_frequencies`."""
        ...
