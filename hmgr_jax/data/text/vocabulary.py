"""Vocabularies: words by id, built from captions, or read from and written to SCAN's JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import read_json

PAD, START, END, UNKNOWN = 0, 1, 2, 3
MARKS = ("<pad>", "<start>", "<end>", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """Words by id; ids 0 to 3 are ``<pad> <start> <end> <unk>`` as in SCAN's files.

    Raises ``UserError`` if the first four words are others or a word occurs twice.
    """

    words: tuple[str, ...]
    whole_words: ClassVar[bool] = True
    """Whether tokens are words, which word graphs connect, and not pieces of words."""

    def __post_init__(self) -> None:
        if self.words[: len(MARKS)] != MARKS:
            raise UserError(
                f"a vocabulary must begin with {' '.join(MARKS)}, but this one begins with "
                f"{' '.join(self.words[: len(MARKS)]) or 'nothing'}: write those four first."
            )
        self._check_distinct()

    def _check_distinct(self) -> None:
        if len(self._ids) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise UserError(f"the vocabulary holds {twice!r} twice: remove one.")

    @property
    def ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Marks before and after every text."""
        return (MARKS[START],), (MARKS[END],)

    @property
    def num_ends(self) -> int:
        """Number of the marks in ``ends``."""
        return sum(map(len, self.ends))

    @property
    def unknown(self) -> str:
        """The mark that replaces an unknown token."""
        return MARKS[UNKNOWN]

    @property
    def pad(self) -> str:
        """The mark of padding."""
        return MARKS[PAD]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def tokenize(self, sentence: str) -> list[str]:
        """Split a caption into tokens."""
        return tokenize(sentence)

    def id(self, word: str) -> int:
        """Return the id of ``word``, or that of ``unknown``."""
        return self._ids.get(word, self._ids[self.unknown])

    def unknown_words(self, tokens: Iterable[str]) -> list[str]:
        """The tokens that are read as ``unknown``, without punctuation."""
        if self.unknown == self.pad:  # the tokenizer knows every text
            return []
        get, unknown = self._ids.get, self._ids[self.unknown]
        return [t for t in tokens if get(t, unknown) == unknown and any(map(str.isalnum, t))]

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Convert tokens to ids, between those of ``ends``."""
        get, unknown = self._ids.get, self._ids[self.unknown]
        before, after = ([self._ids[mark] for mark in marks] for marks in self.ends)
        return [*before, *(get(token, unknown) for token in tokens), *after]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Convert ids to tokens, without padding and ``ends``."""
        marks = (self.pad, *self.ends[0], *self.ends[1])
        return [self.words[i] for i in ids if self.words[i] not in marks]

    def saved(self) -> Any:
        """JSON form, for `hmgr_jax.data.text.pieces.vocabulary_from_json`."""
        return list(self.words)

    @classmethod
    def build(cls, token_lists: Iterable[Sequence[str]], threshold: int = 4) -> Vocabulary:
        """Keep words that occur at least ``threshold`` times (SCAN: 4), by first appearance."""
        counts: Counter[str] = Counter()
        for tokens in token_lists:
            counts.update(tokens)
        kept = (w for w, count in counts.items() if count >= threshold and w not in MARKS)
        return cls((*MARKS, *kept))

    def to_scan(self) -> dict[str, Any]:
        """SCAN's layout: ``{"word2idx", "idx2word" (keys are strings), "idx"}``."""
        return {
            "word2idx": {word: i for i, word in enumerate(self.words)},
            "idx2word": {str(i): word for i, word in enumerate(self.words)},
            "idx": len(self.words),
        }

    @classmethod
    def from_scan(cls, layout: Mapping[str, Any], where: str = "the vocabulary") -> Vocabulary:
        """Read SCAN's layout; ``where`` names its origin in error messages."""
        if not isinstance(layout, Mapping) or not isinstance(layout.get("word2idx"), Mapping):
            raise UserError(
                f'{where} must be a JSON object with "word2idx", "idx2word" and "idx" as written '
                f"by SCAN, but has {_keys(layout)}: give a file in that layout."
            )
        by_word = layout["word2idx"]
        words = _by_id(by_word, where)
        by_id = layout.get("idx2word", {str(i): word for i, word in enumerate(words)})
        agrees = isinstance(by_id, Mapping) and len(by_id) == len(words)
        if not agrees or any(by_id.get(str(i)) != word for i, word in enumerate(words)):
            raise UserError(
                f'{where} gives other words in "idx2word" than in "word2idx": write it again.'
            )
        if layout.get("idx", len(words)) != len(words):
            raise UserError(
                f'{where} holds {len(words)} words but its "idx" says {layout["idx"]}: '
                "write it again."
            )
        return cls(words)

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a JSON file in SCAN's layout; ``UserError`` if it cannot be read."""
        layout = read_json(Path(path), "give a vocabulary in SCAN's layout.")
        return cls.from_scan(layout, f"the vocabulary {path}")

    def save(self, path: str | Path) -> None:
        """Write a JSON file in SCAN's layout."""
        Path(path).write_text(json.dumps(self.to_scan(), ensure_ascii=False), encoding="utf-8")


def _keys(layout: object) -> str:
    """Description of a layout other than SCAN's, for messages."""
    if isinstance(layout, Mapping):
        return f"the keys {', '.join(map(str, list(layout)[:5])) or 'of an empty object'}"
    return f"a {type(layout).__name__}"


def _by_id(by_word: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Words in the order of their ids; ``UserError`` unless these are 0..n-1, each once."""
    words: list[str | None] = [None] * len(by_word)
    for word, i in by_word.items():
        whole = isinstance(i, int) and not isinstance(i, bool)
        if not whole or not 0 <= i < len(words) or words[i] is not None:
            raise UserError(
                f"{where} gives {word!r} the id {i!r}, but ids must be 0 to {len(words) - 1}, "
                "each once: write it again."
            )
        words[i] = word
    return tuple(word for word in words if word is not None)


THRESHOLD = 4
"""A word must occur this often in train and dev to enter the vocabulary (SCAN)."""


def build_vocabulary(
    root: Path,
    sentences: Mapping[str, Sequence[str]],
    tokens: Mapping[str, Sequence[Sequence[str]]],
    more: Mapping[str, Sequence[str]],
    held_out: Collection[str],
) -> Vocabulary:
    """Build a vocabulary of the words that occur `THRESHOLD` times in train and dev.

    Args:
        root: origin of the captions, for messages.
        sentences: {role: captions}.
        tokens: {role: their tokens}.
        more: {image: captions} from elsewhere, counted unless train and dev hold them already.
        held_out: images of dev and test, whose captions in ``more`` are not counted.

    Raises:
        UserError: there is no train split, or no word is frequent enough.
    """
    if "train" not in tokens:
        raise UserError(
            f"{root} was opened without its train split, so no vocabulary can be built: give the "
            "one the model was trained with."
        )
    roles = [role for role in ("train", "dev") if role in tokens]
    counted = {" ".join(s.split()) for role in roles for s in sentences[role]} if more else set()
    others = (
        tokenize(caption)
        for image, captions in more.items()
        for caption in captions
        if image not in held_out and " ".join(caption.split()) not in counted
    )
    vocabulary = Vocabulary.build(chain(*(tokens[role] for role in roles), others), THRESHOLD)
    if len(vocabulary) == len(MARKS):
        raise UserError(
            f"no word occurs {THRESHOLD} times in the captions of {root}, so its vocabulary "
            "would be empty: give a vocabulary."
        )
    return vocabulary
