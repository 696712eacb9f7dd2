"""Names of a detector's classes, and what word vectors make of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vectors import read_vectors
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError


def read_class_names(path: str | Path, count: int) -> list[list[str]]:
    """The words of each of ``count`` classes, from a text file with a class a line.

    Of names that a comma divides, as Visual Genome's are, the first counts.

    Raises:
        UserError: the file cannot be read, or holds another number of names, or an empty one.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the class names {path} cannot be read ({error}): mend the path."
        ) from None
    if len(lines) != count:
        raise UserError(
            f"{path} holds {len(lines)} names where the model has {count} classes: give a line a "
            "class, in the order of their ids, or set the model's number of classes to that."
        )
    names = [tokenize(line.split(",")[0].replace("_", " ")) for line in lines]
    if not all(names):
        raise UserError(f"{path}:{names.index([]) + 1} is empty: give every class a name.")
    return names


def class_vectors(
    names: list[list[str]], data: Any, opened: DataSet, words: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(which classes have a vector, int [k]; these vectors, float32 [k, dim]).

    The vector of a class is the mean of those of its words: from the file ``data.vectors`` names,
    else ``words`` [V, dim] of the vocabulary's words, as they were learnt. A class none of whose
    words has one is left out, and a warning says how many have one: ``len`` of the first.

    Raises:
        UserError: no vectors are given, or none of the classes has one.
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
    _tell_lacking(len(have), len(names), data.vectors)
    return have, np.asarray([np.mean(found[i], axis=0) for i in have], np.float32)


def _tell_lacking(count: int, of: int, vectors: str) -> None:
    """Say that only ``count`` of the classes have a vector; refuse that none has."""
    where = "the captions" if vectors == "captions" else vectors
    if not count:
        raise UserError(
            f"None of the {of} class names has a word of {where}: give names in the language of "
            "the vectors, other vectors as data.vectors, or no names."
        )
    if count < of:
        warnings.warn(
            f"{count} of {of} class names have a vector, by the words of {where}: the others begin "
            "at random",
            RuntimeWarning,
            stacklevel=3,
        )
