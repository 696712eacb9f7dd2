"""Relations between the words of a vocabulary: C (co-occurrence) and K (knowledge) of SCKR.

SCKR (KSEM 2019) also uses S (similarity), as does GIN; it needs word vectors and is computed on
device (`hmgr_jax.layers.vocabulary_graph.nearest`). Edges are pairs of word ids, int64 [E, 2].
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.sparse

from hmgr_jax.data.text.captions import CaptionSource, bags_of, read_lines
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

VOCABULARY_NODES = "the vocabulary has {} words (with <pad>, <start>, <end> and <unk>)"
BAG_NODES = "texts are vectors of {} numbers"
CHUNK = 20000  # captions


def caption_words(source: CaptionSource, size: int) -> scipy.sparse.csr_array:
    """Counts of every word in every caption: float32 [captions, size], without marks."""
    parts = [
        bags_of(source.gather(np.arange(first, min(first + CHUNK, len(source))))["tokens"], size)
        for first in range(0, len(source), CHUNK)
    ]
    return scipy.sparse.csr_array(scipy.sparse.vstack(parts))


def together(
    texts: scipy.sparse.csr_array, *, least: int = 2, information: float = 1.0
) -> np.ndarray:
    """Pairs of words that occur together in at least ``least`` texts, and not by chance.

    Their pointwise mutual information log(n(i, j) N / (n(i) n(j))), with n of N texts, is at least
    ``information``.
    """
    held = scipy.sparse.csr_array((texts > 0).astype(np.float64))
    alone = np.asarray(held.sum(axis=0)).ravel()
    pairs = scipy.sparse.triu(held.T @ held, k=1).tocoo()
    i, j = pairs.coords
    gain = np.log(np.maximum(pairs.data, 1e-12) * held.shape[0] / (alone[i] * alone[j]))
    kept = (pairs.data >= least) & (gain >= information)
    return np.stack([i[kept], j[kept]], axis=1).astype(np.int64)


def inverse_frequencies(texts: scipy.sparse.csr_array) -> np.ndarray:
    """log((1 + N) / (1 + n)) + 1 of every word, which occurs in n of N texts: float32 [V]."""
    held = np.asarray((texts > 0).sum(axis=0)).ravel()
    return (np.log((1.0 + texts.shape[0]) / (1.0 + held)) + 1.0).astype(np.float32)


def read_triples(path: str | Path, vocabulary: Vocabulary) -> np.ndarray:
    """Read edges from lines of ``head <tab> relation <tab> tail`` (or head and tail only).

    A triple counts if head and tail are words of the vocabulary; the relation is ignored.

    Raises:
        UserError: a line has another form, or no triple joins two words of the vocabulary.
    """
    path = Path(path)
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) not in (2, 3) or not all(fields):
            raise UserError(
                f"{path}:{number} has {len(fields)} fields where head, relation and tail (or head "
                "and tail), separated by tabs, were expected: correct the line."
            )
        found.append((fields[0].lower(), fields[-1].lower()))
    edges = between_words(found, vocabulary)
    if not len(edges):
        raise UserError(
            f"{path} holds {len(found)} triples, but none joins two words of the vocabulary: give "
            "another file, or leave K out of model.word_relations."
        )
    return edges


def between_words(pairs: Iterable[tuple[str, str]], vocabulary: Vocabulary) -> np.ndarray:
    """Ids of the pairs whose words are both in the vocabulary."""
    known = [
        (vocabulary.id(a), vocabulary.id(b))
        for a, b in pairs
        if a in vocabulary and b in vocabulary and a not in MARKS and b not in MARKS
    ]
    return np.array(known, np.int64).reshape(-1, 2)


def read_neighbours(path: str | Path, size: int, nodes: str = VOCABULARY_NODES) -> np.ndarray:
    """Read edges of an SCKR graph file: line i holds the neighbours of node i, perhaps none.

    Nodes are numbered from 0, in the order of the vocabulary (of bags: of their features);
    ``nodes`` describes them in messages.

    Raises:
        UserError: the number of lines is not ``size``, or a line holds something else than nodes.
    """
    path = Path(path)
    try:
        lines = path.read_text("ascii").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The word graph {path} cannot be read ({error}): correct it.") from None
    if lines and not lines[-1].strip():
        lines.pop()
    if len(lines) != size:
        raise UserError(
            f"{path} has {len(lines)} lines, but {nodes.format(size)}: give one line for each, "
            "empty if it has no neighbours."
        )
    found: list[np.ndarray] = []
    for node, line in enumerate(lines):
        found.append(_neighbours(line, f"{path}:{node + 1}", node, size))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def _neighbours(line: str, where: str, node: int, size: int) -> np.ndarray:
    try:
        numbers = np.array([int(field) for field in line.split()], np.int64)
    except ValueError as error:
        raise UserError(
            f"{where} holds a field that is not a node number ({error}): correct it."
        ) from None
    wrong = numbers[(numbers < 0) | (numbers >= size)]
    if len(wrong):
        raise UserError(
            f"{where} names node {wrong[0]}, but nodes are numbered 0 to {size - 1}: correct the "
            "line, or give the graph of this vocabulary."
        )
    return np.stack([np.full(len(numbers), node), numbers], axis=1)
