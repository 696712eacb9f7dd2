"""WordPiece vocabularies: captions as pieces of words, by ``vocab.txt`` or ``tokenizer.json``.

Checkpoints store `Pieces` like any `Vocabulary`, so that a trained run does not need the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from hmgr_jax.data.text.tokenizer_file import TokenizerFile
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import parse_json

FILE, WHOLE, SETTINGS = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True)
class Pieces(Vocabulary):
    """Pieces by id, in the order of ``vocab.txt``; texts begin with ``[CLS]``, end with ``[SEP]``.

    Raises ``UserError`` if one of `MARKS` is missing or a piece occurs twice.
    """

    lower: bool = True
    """Texts are lower-cased, and lose their accents."""
    whole_words: ClassVar[bool] = False
    ends: ClassVar[Any] = (("[CLS]",), ("[SEP]",))
    unknown: ClassVar[Any] = "[UNK]"
    pad: ClassVar[Any] = "[PAD]"

    def __post_init__(self) -> None:
        self._check_distinct()
        missing = [mark for mark in MARKS if mark not in self]
        if missing:
            raise UserError(
                f"a vocabulary of WordPieces must hold {', '.join(MARKS)}, but this one lacks "
                f"{', '.join(missing)}: give the vocab.txt of a BERT."
            )

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import BertWordPieceTokenizer
        except ImportError:
            raise UserError(
                "WordPieces need the package tokenizers: install it with pip install "
                "'hmgr-jax[bert]'."
            ) from None
        return BertWordPieceTokenizer(self._ids, lowercase=self.lower)

    def tokenize(self, sentence: str) -> list[str]:
        """Split a text into pieces; ``##`` marks those that continue a word."""
        found: list[str] = self._tokenizer.encode(sentence, add_special_tokens=False).tokens
        return found

    def saved(self) -> Any:
        """JSON form, for `vocabulary_from_json`."""
        return {"pieces": list(self.words), "lower": self.lower}

    @classmethod
    def load(cls, folder: str | Path) -> Pieces:
        """Read a folder's vocabulary, and ``do_lower_case`` of ``tokenizer_config.json``.

        The vocabulary is ``vocab.txt``, or that in ``tokenizer.json`` where the former is missing.
        Texts are lower-cased by default.

        Raises:
            UserError: both are missing, or a file is malformed or of another tokenizer.
        """
        path, whole = Path(folder, FILE), Path(folder, WHOLE)
        if not path.is_file() and whole.is_file():
            path, words = whole, _words_of_tokenizer(whole)
        else:
            words = _lines(path)
        try:
            return cls(words, _lower(Path(folder, SETTINGS)))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_bytes().decode().split("\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give as data.pieces the folder of a BERT "
            f"with its {FILE} or {WHOLE}."
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): get the file again.") from None
    words = tuple(line.rstrip("\r") for line in lines)
    return words[: -1 if words[-1] == "" else None]


def _words_of_tokenizer(path: Path) -> tuple[str, ...]:
    """The vocabulary of a ``tokenizer.json`` in the order of its ids."""
    try:
        model = parse_json(path.read_bytes())["model"]
        kind, ids = model.get("type"), model["vocab"]
        if kind != "WordPiece" or sorted(ids.values()) != list(range(len(ids))):
            raise ValueError(f"a vocabulary of {kind or 'no'} kind, or with gaps between its ids")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"{path} holds no vocabulary of WordPieces ({error}): give the folder of a BERT."
        ) from None
    return tuple(sorted(ids, key=ids.__getitem__))


def _lower(path: Path) -> bool:
    if not path.is_file():
        return True
    try:
        found = parse_json(path.read_bytes()).get("do_lower_case", True)
    except (ValueError, AttributeError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): get the file again.") from None
    if not isinstance(found, bool):
        raise UserError(f"{path} has do_lower_case {found!r}: write true or false.")
    return found


def vocabulary_from_json(saved: Mapping[str, Any] | Iterable[str]) -> Vocabulary:
    """Restore a vocabulary from `Vocabulary.saved`."""
    if isinstance(saved, Mapping) and "tokenizer" in saved:
        values = (saved[key] for key in ("tokenizer", "length", "padding", "lower"))
        return TokenizerFile(*values)
    if isinstance(saved, Mapping):
        return Pieces(tuple(saved["pieces"]), bool(saved["lower"]))
    return Vocabulary(tuple(saved))
