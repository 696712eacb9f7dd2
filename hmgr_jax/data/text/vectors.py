"""Word vectors, learned from captions (PPMI and SVD) or read from GloVe and word2vec files.

The caller of `learn_vectors` must leave out the captions of dev and test splits.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import MARKS, PAD, Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import check_features

SMOOTHING = 0.75
UNSEEN_NORM = 0.1
DENSE_BELOW = 5000  # words; up to here a dense decomposition is several times faster than svds


def learn_vectors(
    token_lists: Iterable[Sequence[str]],
    vocabulary: Vocabulary,
    dim: int = 300,
    window: int | None = None,
    seed: int = 0,
    shift: float = 1.0,
) -> np.ndarray:
    """Learn vectors float32 [V, dim] from the co-occurrence of words in ``token_lists``.

    Shifted positive pointwise mutual information (Levy and Goldberg, NIPS 2014; ``shift`` is
    their k) with contexts smoothed by the power 0.75, then a truncated SVD weighted by the root
    of the singular values (Levy, Goldberg and Dagan, TACL 2015). ``window`` counts words to each
    side; None is the whole list: a caption, or the captions of one image joined.

    Deterministic, signs included. Seen words have a mean squared norm of 1, others a small random
    vector from ``seed``, padding is zero. Raises ``UserError`` if no two words occur together.
    """
    counts = _cooccurrence(token_lists, vocabulary, window)
    return _of_counts(counts, _small_random(vocabulary, dim, seed), shift)


def vectors_of_bags(bags: scipy.sparse.csr_array, dim: int) -> np.ndarray:
    """Like `learn_vectors`, from bags [n, V] of word counts; a word in no bag is zero."""
    return _of_counts(_together(bags), np.zeros((bags.shape[1], dim)), 1.0)


def _of_counts(counts: scipy.sparse.csr_array, others: np.ndarray, shift: float) -> np.ndarray:
    """Vectors [V, dim] of words that occur with others; the rest keep those of ``others``."""
    seen = np.flatnonzero(counts.sum(axis=1))
    if not len(seen):
        raise UserError(
            "no two words of the vocabulary occur together in the captions, so no word vectors can "
            "be learned: give the captions of the train split."
        )
    vectors, dim = others, others.shape[1]
    factors = _factors(_ppmi(counts[seen][:, seen], shift), min(dim, len(seen)))
    vectors[seen] = 0.0
    vectors[seen, : factors.shape[1]] = factors
    norm = np.sqrt(np.mean(np.sum(factors**2, axis=1)))
    vectors[seen] /= norm if norm > 0 else 1.0
    return vectors.astype(np.float32)


def _cooccurrence(
    token_lists: Iterable[Sequence[str]], vocabulary: Vocabulary, window: int | None
) -> scipy.sparse.csr_array:
    """Symmetric co-occurrence counts [V, V], without unknown words.

    Without a window every pair of words of a list counts, so that words of all five captions of an
    image weigh more than those of one.
    """
    ids = [
        [vocabulary.id(token) for token in tokens if token in vocabulary] for tokens in token_lists
    ]
    lengths = np.asarray([len(row) for row in ids], np.int64)
    flat = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
    owner = np.repeat(np.arange(len(ids)), lengths)
    size = len(vocabulary)
    if window is None:
        shape = (len(ids), size)
        return _together(scipy.sparse.csr_array((np.ones(len(flat)), (owner, flat)), shape=shape))
    total = scipy.sparse.csr_array((size, size))
    for gap in range(1, window + 1):
        same = np.flatnonzero(owner[gap:] == owner[:-gap])
        pairs = (flat[same], flat[same + gap])
        total = total + scipy.sparse.csr_array((np.ones(len(same)), pairs), shape=(size, size))
    return scipy.sparse.csr_array(total + total.T)


def _together(held: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Co-occurrence counts [V, V] in lists [n, V] of counts or shares; no mention with itself."""
    itself = np.minimum(held.sum(axis=0), held.power(2).sum(axis=0))
    return scipy.sparse.csr_array(held.T @ held - scipy.sparse.diags_array(itself, format="csr"))


def _ppmi(counts: scipy.sparse.csr_array, shift: float) -> scipy.sparse.csr_array:
    """max(0, log p(word, context) / (p(word) p(context)) - log shift) of the counted pairs."""
    pairs = counts.tocoo()
    word = np.asarray(counts.sum(axis=1))
    context = np.asarray(counts.sum(axis=0)) ** SMOOTHING
    row, column = pairs.coords
    counted = pairs.data > 0  # the diagonal may hold explicit zeros
    row, column, together = row[counted], column[counted], pairs.data[counted]
    information = np.log(together * context.sum() / (word[row] * context[column]))
    values = np.maximum(information - np.log(shift), 0.0)
    return scipy.sparse.csr_array((values, (row, column)), shape=counts.shape)


def _factors(matrix: scipy.sparse.csr_array, dim: int) -> np.ndarray:
    """Left singular vectors times the root of the singular values, float64 [n, dim], sorted."""
    n = matrix.shape[0]
    if n <= DENSE_BELOW:
        squares, left = scipy.linalg.eigh(
            (matrix @ matrix.T).toarray(), subset_by_index=(n - dim, n - 1)
        )
        values = np.sqrt(np.maximum(squares, 0.0))
    else:
        start = np.random.default_rng(0).standard_normal(n)
        left, values, _ = scipy.sparse.linalg.svds(matrix, k=dim, v0=start)
    order = np.argsort(-values, kind="stable")
    left, values = left[:, order], values[order]
    leading = left[np.argmax(np.abs(left), axis=0), np.arange(left.shape[1])]
    return left * np.where(leading < 0, -1.0, 1.0) * np.sqrt(values)


def _small_random(vocabulary: Vocabulary, dim: int, seed: int) -> np.ndarray:
    """Random vectors float64 [V, dim] of norm about `UNSEEN_NORM`, padding zero."""
    drawn = np.random.default_rng(seed).standard_normal((len(vocabulary), dim))
    drawn *= UNSEEN_NORM / np.sqrt(dim)
    drawn[PAD] = 0.0
    return drawn


def read_vectors(
    path: str | Path, vocabulary: Vocabulary, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Read vectors float32 [V, dim] of a text file, and which words it has, bool [V].

    The first line distinguishes GloVe (a word and its numbers) from word2vec's text format (two
    counts, then the same). The file is streamed; the first of equal words counts. A word that the
    file lacks takes the vector of its form without hyphens, dots and apostrophes, up to a slash (as
    in PCME); others get a small random one from ``seed``.

    Raises:
        UserError: the file cannot be read, or a line is malformed; names the line.
    """
    path = Path(path)
    dim: int | None = None
    found: dict[int, np.ndarray] = {}
    bare, spare = _bare_words(vocabulary), dict[int, np.ndarray]()
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1 and len(raw.split()) == 2:
                    continue
                word, numbers = _split_line(raw, dim, path, number)
                dim = dim or len(numbers)
                if word in vocabulary and (i := vocabulary.id(word)) not in found:
                    found[i] = _parse(numbers, path, number)
                for i in bare.get(word, ()):
                    if i not in spare:
                        spare[i] = _parse(numbers, path, number)
    except OSError as error:
        raise UserError(
            f"the vectors {path} cannot be read ({error.strerror}): correct data.vectors."
        ) from None
    if dim is None:
        raise UserError(f"{path} holds no word vectors: give a GloVe or word2vec text file.")
    vectors = _small_random(vocabulary, dim, seed)
    found = {**spare, **found}
    known = np.zeros(len(vocabulary), bool)
    for i, values in found.items():
        vectors[i], known[i] = values, True
    vectors[PAD] = 0.0
    return vectors.astype(np.float32), known


def _bare_words(vocabulary: Vocabulary) -> dict[str, list[int]]:
    """{word without hyphens, dots and apostrophes, up to a slash: ids}, where this differs."""
    found: dict[str, list[int]] = {}
    for i, word in enumerate(vocabulary.words):
        bare = word.translate(str.maketrans("", "", "-.'")).partition("/")[0]
        if bare and bare != word:
            found.setdefault(bare, []).append(i)
    return found


def _split_line(raw: bytes, dim: int | None, path: Path, number: int) -> tuple[str, list[bytes]]:
    """Split a line into a word and its ``dim`` numbers; words may hold spaces."""
    fields = raw.rstrip().split(b" ")
    count = dim or len(fields) - 1
    if len(fields) < max(2, count + 1):
        raise UserError(
            f"{path}:{number} has {len(fields) - 1} numbers where {max(count, 1)} were expected "
            "after the word: the file is cut short or in another format."
        )
    head = fields[: len(fields) - count]
    if len(head) > 1 and _is_number(head[-1]):
        raise UserError(f"{path}:{number} has more than {count} numbers: give every word as many.")
    try:
        return b" ".join(head).decode("utf-8"), fields[len(head) :]
    except UnicodeDecodeError:
        raise UserError(f"{path}:{number} is not UTF-8: save the file as UTF-8.") from None


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _parse(numbers: list[bytes], path: Path, line: int) -> np.ndarray:
    try:
        values = np.array([float(field) for field in numbers])
    except ValueError as error:
        raise UserError(f"{path}:{line} holds a field that is not a number ({error}).") from None
    check_features(values[None], lambda _: f"{path}:{line}", "remove the line.")
    return values


def read_class_names(path: str | Path, count: int) -> list[list[str]]:
    """Read the words of ``count`` classes of a detector, one class a line.

    Of names separated by commas, as in Visual Genome, the first counts.

    Raises:
        UserError: the file cannot be read, has another number of names, or an empty one.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the class names {path} cannot be read ({error}): correct the path."
        ) from None
    if len(lines) != count:
        raise UserError(
            f"{path} holds {len(lines)} names where the model has {count} classes: give one line "
            "per class, in the order of their ids, or change the model's number of classes."
        )
    names = [tokenize(line.split(",")[0].replace("_", " ")) for line in lines]
    if not all(names):
        raise UserError(f"{path}:{names.index([]) + 1} is empty: give every class a name.")
    return names


def class_vectors(
    names: list[list[str]], data: Any, opened: DataSet, words: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Average word vectors by class: (classes that have one, int [k]; vectors float32 [k, dim]).

    Word vectors are those of the file ``data.vectors``, else ``words`` [V, dim], learned for the
    vocabulary. Classes without any are left out with a warning.

    Raises:
        UserError: no vectors are given, or no class has one.
    """
    known, there = opened.vocabulary, np.ones(len(opened.vocabulary), bool)
    if data.vectors not in ("none", "captions"):
        own = dict.fromkeys(word for name in names for word in name if word not in MARKS)
        known = Vocabulary((*MARKS, *own))
        words, there = read_vectors(data.vectors, known)
    if words is None:
        raise UserError(
            "class names are given but data.vectors is none: name a file of word vectors, or "
            "captions to learn them."
        )
    ids = [[known.id(word) for word in name if word in known] for name in names]
    found = [[words[i] for i in of if there[i]] for of in ids]
    have = np.flatnonzero([bool(vectors) for vectors in found])
    _warn_of_missing(len(have), len(names), data.vectors)
    return have, np.asarray([np.mean(found[i], axis=0) for i in have], np.float32)


def _warn_of_missing(count: int, of: int, vectors: str) -> None:
    """Warn if only ``count`` of the classes have a vector; ``UserError`` if none has."""
    where = "the captions" if vectors == "captions" else vectors
    if not count:
        raise UserError(
            f"None of the {of} class names has a word in {where}: give names in the language of "
            "the vectors, other vectors as data.vectors, or no names."
        )
    if count < of:
        warnings.warn(
            f"{count} of {of} class names have a vector in {where}; the others start at random",
            RuntimeWarning,
            stacklevel=3,
        )
