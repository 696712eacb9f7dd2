"""Captions in memory as token ids, gathered into padded batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse

from hmgr_jax.data.split import Items, Source, Split
from hmgr_jax.data.text.vocabulary import MARKS, PAD, Vocabulary
from hmgr_jax.errors import UserError

MAX_WORDS = 94
"""Words kept of a caption by default: with ``<start>`` and ``<end>`` it fits a length of 96."""
MOST_UNKNOWN = 0.2
"""Share of unknown words above which a warning is given."""


class Arcs(NamedTuple):
    """Dependency arcs of a caption's tokens."""

    heads: Sequence[int]
    """Index of each token's head: -1 for a root, its own if it has none."""
    relations: Sequence[int]
    """Indices into `text_graph.RELATIONS`."""


class CaptionSource:
    """Token ids of captions; ``lengths`` (int32 [n]) count ``<start>`` and ``<end>``.

    A caption of more than ``max_words`` words is cut and keeps its ``<end>``. ``captions`` are the
    sentences as written. ``arcs`` are word graphs, one per caption: roots depend on ``<start>``;
    words whose head was cut have none. With ``bags`` items also have "features" float32 [k, V], the
    counts of the vocabulary's words. ``tokens`` and ``unknown`` count words, and those of them that
    the vocabulary lacks; ``cut`` counts captions that are cut.
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
            raise UserError(f"max_words must be at least 1, it is {max_words}: correct it.")
        token_lists = [*token_lists]
        self.tokens = sum(map(len, token_lists))
        self.max_words = max_words
        self.cut = sum(len(tokens) > max_words for tokens in token_lists)
        self.unknown = sum(len(vocabulary.unknown_words(tokens)) for tokens in token_lists)
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

        Word graphs add "heads" (position of the head; its own if there is none) and "relations"
        (of `text_graph.RELATIONS`), int32 [k, L]. L is ``length``, or the longest of ``items``.
        Raises ``ValueError`` if one is longer.
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


def unknown_shares(splits: Mapping[str, Split]) -> str:
    """The share of words that the vocabulary lacks, as ``2.1% of train, 2.5% of dev``."""
    return ", ".join(
        f"{texts.unknown / max(texts.tokens, 1):.1%} of {role}"
        for role, texts in captions_of(splits).items()
    )


def warn_cut(given: Mapping[str, CaptionSource]) -> None:
    """Warn of ``given`` captions, by name, that are cut."""
    cut = [
        f"{of.cut:,} of {len(of):,} texts of {role} ({of.cut / len(of):.1%}) to the first "
        f"{of.max_words} words"
        for role, of in given.items()
        if of.cut
    ]
    if cut:
        warnings.warn(
            f"the program cuts {' and '.join(cut)} (data.max_words, data.buckets)",
            RuntimeWarning,
            stacklevel=3,
        )


def warn_unknown(given: Mapping[str, CaptionSource]) -> None:
    """Warn of ``given`` captions, by name, with more than `MOST_UNKNOWN` unknown words."""
    strange = [
        f"{of.unknown:,} of {of.tokens:,} words of {role} ({of.unknown / of.tokens:.1%})"
        for role, of in given.items()
        if of.unknown > MOST_UNKNOWN * of.tokens
    ]
    if strange:
        warnings.warn(
            f"{' and '.join(strange)} are not in the vocabulary and are read as one unknown word: "
            "check that the vocabulary is of the same language",
            RuntimeWarning,
            stacklevel=3,
        )


def captions_of(splits: Mapping[str, Split]) -> dict[str, CaptionSource]:
    """The captions of every split that has them as words."""
    found = {role: split.sources.get("text") for role, split in splits.items()}
    return {role: texts for role, texts in found.items() if isinstance(texts, CaptionSource)}


def captioned_split(
    name: str,
    visual: str,
    source: Source,
    texts: CaptionSource,
    owners: np.ndarray,
    ids: Sequence[str],
    groups: np.ndarray | None = None,
    **annotations: dict[str, np.ndarray],
) -> Split:
    """Make a split of images or videos with captions, a row per caption.

    Args:
        name: of the split.
        visual: ``"image"`` or ``"video"``.
        source: the visual items.
        texts: their captions, those of one item side by side.
        owners: int32 [captions], the visual item of each.
        ids: of the visual items; captions are ``id#0``, ``id#1`` and so on.
        groups: int32 [items], by default every item is its own.
        annotations: further fields of `Split`.
    """
    if groups is None:
        groups = np.arange(len(ids), dtype=np.int32)
    place = np.arange(len(owners)) - np.searchsorted(owners, owners)
    return Split(
        name=name,
        sources={visual: source, "text": texts},
        groups={visual: groups, "text": groups[owners]},
        rows={visual: owners, "text": np.arange(len(owners), dtype=np.int32)},
        ids={
            visual: ids,
            "text": [f"{ids[i]}#{k}" for i, k in zip(owners.tolist(), place, strict=True)],
        },
        **annotations,
    )


def bags_of(tokens: np.ndarray, words: int) -> scipy.sparse.csr_array:
    """Counts of ``words`` words in padded tokens int [k, L]: float32 [k, words], without marks."""
    row, place = np.nonzero(tokens >= len(MARKS))
    ones = np.ones(len(row), np.float32)
    return scipy.sparse.csr_array((ones, (row, tokens[row, place])), shape=(len(tokens), words))


def _flat_arcs(arcs: Sequence[Arcs], lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Concatenate heads and relations of all captions, with ``<start>`` and ``<end>``."""
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
    """Read the stripped lines of a UTF-8 file; only line feeds separate them.

    Raises:
        UserError: the file cannot be read, or a line is not UTF-8 or empty; names the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): put the file there.") from None
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
        raise UserError(f"{path}:{number} is empty: fill in the line or remove it.")
    return line
