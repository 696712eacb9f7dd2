"""Captions in memory as token ids, gathered into padded batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse

from hmgr_jax.data.split import Items
from hmgr_jax.data.text.vocabulary import MARKS, PAD, Vocabulary
from hmgr_jax.errors import UserError

MAX_WORDS = 94
"""Words kept of a caption by default: with ``<start>`` and ``<end>`` it fits a length of 96."""


class Arcs(NamedTuple):
    """What the tokens of a caption depend on."""

    heads: Sequence[int]
    """Number of the token, -1 for a root; a token's own where it depends on none."""
    relations: Sequence[int]
    """A number of `text_graph.RELATIONS` each."""


class CaptionSource:
    """Token ids of captions; ``lengths`` (int32 [n]) count ``<start>`` and ``<end>``.

    A caption of more than ``max_words`` words is cut, and keeps its ``<end>``. ``captions`` are
    the sentences as written, for people. ``arcs`` are word graphs, one a caption: roots depend on
    ``<start>``, and what depends on a word that was cut depends on nothing. With ``bags`` items
    also have "features", how often each word of the vocabulary stands there (float32 [k, V]).
    """

    def __init__(
        self,
        token_lists: Iterable[Sequence[str]],
        vocabulary: Vocabulary,
        *,
        max_words: int = MAX_WORDS,
        captions: Sequence[str] = (),
        arcs: Sequence[Arcs] | None = None,
        bags: bool = False,
    ) -> None:
        if max_words < 1:
            raise UserError(f"max_words must be at least 1, it is {max_words}.")
        encoded = [vocabulary.encode(tokens[:max_words]) for tokens in token_lists]
        self.captions = tuple(captions)
        self._words = len(vocabulary) if bags else 0
        self._lengths = np.asarray([len(ids) for ids in encoded], np.int32)
        self.lengths: np.ndarray | None = self._lengths
        self._starts = np.cumsum(self._lengths, dtype=np.int64) - self._lengths
        self._flat = np.fromiter(chain.from_iterable(encoded), np.int32)
        self._arcs = None if arcs is None else _flat_arcs(arcs, self._lengths)

    def __len__(self) -> int:
        return len(self._lengths)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """``{"tokens": int32 [k, L] padded with 0, "lengths": int32 [k]}``.

        With word graphs also "heads" (position of the word each depends on; its own where there is
        none) and "relations" (a number of `text_graph.RELATIONS`), int32 [k, L].

        L is ``length``, or the longest of ``items``. Raises ``ValueError`` where one is longer.
        """
        items = np.asarray(items, np.int64).reshape(-1)
        lengths = self._lengths[items]
        longest = int(lengths.max(initial=1))
        if length is None:
            length = longest
        if longest > length:
            raise ValueError(f"a caption of {longest} tokens does not fit a length of {length}")
        position = np.arange(length)
        inside = position < lengths[:, None]
        where = np.where(inside, self._starts[items][:, None] + position, 0)
        found = {"tokens": np.where(inside, self._flat[where], np.int32(PAD)), "lengths": lengths}
        for name, flat in (self._arcs or {}).items():
            found[name] = np.where(inside, flat[where], np.int32(0))
        if self._words:
            found["features"] = bags_of(found["tokens"], self._words).toarray()
        return found


def bags_of(tokens: np.ndarray, words: int) -> scipy.sparse.csr_array:
    """How often each of ``words`` words stands in padded tokens int [k, L]: float32 [k, words].

    Padding and the marks of beginning, end and unknown words count for nothing.
    """
    row, place = np.nonzero(tokens >= len(MARKS))
    ones = np.ones(len(row), np.float32)
    return scipy.sparse.csr_array((ones, (row, tokens[row, place])), shape=(len(tokens), words))


def _flat_arcs(arcs: Sequence[Arcs], lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Heads and relations of all captions in a row, with ``<start>`` and ``<end>``."""
    heads: list[int] = []
    relations: list[int] = []
    for (given, kinds), length in zip(arcs, lengths.tolist(), strict=True):
        words = length - 2
        own = [
            (head + 1, kind) if head < words else (place, 0)
            for place, (head, kind) in enumerate(zip(given, kinds, strict=True), start=1)
        ][:words]
        heads += [0, *(head for head, _ in own), length - 1]
        relations += [0, *(kind for _, kind in own), 0]
    return {"heads": np.array(heads, np.int32), "relations": np.array(relations, np.int32)}


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, stripped; ``UserError`` with file and line for a bad or empty one.

    Only line feeds end a line: a caption may hold other separators of Unicode.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    rows = raw.split(b"\n")
    if not rows[-1].strip():
        rows.pop()
    return [_line(row, path, number) for number, row in enumerate(rows, start=1)]


def _line(row: bytes, path: Path, number: int) -> str:
    try:
        line = row.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number} is not UTF-8 (byte {error.start + 1} of the line): save the file "
            "as UTF-8."
        ) from None
    if not line:
        raise UserError(f"{path}:{number} is empty: every line must hold something, so fill it in.")
    return line
