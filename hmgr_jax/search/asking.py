"""Queries of a search: sentences, picture files, or ids of items of the run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.named_items import find_item
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.search.gallery import check_modality, encoded, of_split
from hmgr_jax.search.index import Item


@dataclass(frozen=True)
class Questions:
    """Queries of one modality."""

    modality: str
    items: Sequence[Item]
    codes: Any
    split: str = ""
    """The split of the run, if the items are from one."""

    @property
    def names(self) -> list[str]:
        """The sentences, or the ids of the items."""
        return [i.caption if self.modality == "text" else i.id for i in self.items]


def of_sentences(retriever: Retriever, sentences: Sequence[str]) -> Questions:
    """Sentences as queries.

    Raises:
        UserError: the system reads no sentences, or a sentence is empty or has no known word.
    """
    check_modality(retriever, "text")
    source = retriever.sentence_source(sentences)
    check_known(retriever.vocabulary, sentences)
    items = [Item(f"query {n}", sentence) for n, sentence in enumerate(sentences)]
    return Questions("text", items, encoded(retriever, "text", source))


def check_known(vocabulary: Vocabulary, sentences: Sequence[str]) -> None:
    """Warn of unknown words; refuse a sentence without any other."""
    if unknown := unknown_words(vocabulary, sentences):
        named = ", ".join(map(repr, dict.fromkeys(unknown)))
        count = sum(len(vocabulary.tokenize(sentence)) for sentence in sentences)
        warnings.warn(
            f"the run does not know {len(unknown)} of {count} words and reads them as one "
            f"unknown word: {named}",
            RuntimeWarning,
            stacklevel=3,
        )


def unknown_words(vocabulary: Vocabulary, sentences: Sequence[str]) -> list[str]:
    """The words of sentences that a run does not know.

    Raises:
        UserError: a sentence has no other words.
    """
    found: list[str] = []
    for sentence in sentences:
        words = vocabulary.tokenize(sentence)
        strange = vocabulary.unknown_words(words)
        if strange and len(strange) == sum(any(map(str.isalnum, word)) for word in words):
            raise UserError(
                f"The run knows no word of {sentence!r}: ask in the words of its captions."
            )
        found += strange
    return found


def of_pictures(retriever: Retriever, files: Sequence[Path]) -> Questions:
    """Picture files as queries.

    Raises:
        UserError: a file cannot be read, or the system reads no picture files.
    """
    check_modality(retriever, "image")
    source = retriever.picture_source(files)
    items = [Item(file.name, "", str(file.resolve()), "") for file in files]
    return Questions("image", items, encoded(retriever, "image", source))


def of_names(
    retriever: Retriever,
    names: Sequence[str],
    role: str,
    modality: str | None,
    pictures: Path | None = None,
) -> Questions:
    """Picture files, or ids or numbers of items of a split, as queries.

    Args:
        retriever: the run.
        names: picture files, or ids or numbers of items.
        role: the split of the items.
        modality: the modality of the items; by default the one that captions describe.
        pictures: folder of the picture files that ids name.

    Raises:
        UserError: a file or item is missing, or the system was not trained on pixels.
    """
    files = [Path(name) for name in names]
    if any(file.is_file() for file in files):
        return of_pictures(retriever, files)
    gallery = of_split(retriever, role, modality, pictures)
    ids = [item.id for item in gallery.items]
    numbers = np.array([find_item(gallery.modality, ids, name, role) for name in names])
    some = _Subset(gallery.source, numbers)
    found = [gallery.items[number] for number in numbers]
    return Questions(gallery.modality, found, encoded(retriever, gallery.modality, some), role)


class _Subset:
    """Selected items of a source, in a given order."""

    def __init__(self, source: Any, numbers: np.ndarray) -> None:
        self._source, self._numbers = source, numbers
        self.lengths = None if source.lengths is None else source.lengths[numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def gather(self, items: np.ndarray, length: int | None = None) -> Any:
        return self._source.gather(self._numbers[np.asarray(items)], length)
