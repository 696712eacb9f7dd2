"""WordPiece: captions as pieces of words, by the ``vocab.txt`` of a BERT.

`Pieces` is a `Vocabulary` whose words are those of that file: it lies in the checkpoint, so that a
run needs the file no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError

FILE, SETTINGS = "vocab.txt", "tokenizer_config.json"
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True)
class Pieces(Vocabulary):
    """Pieces by id, in the order of ``vocab.txt``; texts stand between ``[CLS]`` and ``[SEP]``.

    Raises ``UserError`` where one of `MARKS` is missing or a piece occurs twice.
    """

    lower: bool = True
    """Texts are lower-cased, and lose their accents."""

    def __post_init__(self) -> None:
        self._demand_distinct()
        missing = [mark for mark in MARKS if mark not in self]
        if missing:
            raise UserError(
                f"a vocabulary of WordPieces must hold {', '.join(MARKS)}, this one lacks "
                f"{', '.join(missing)}: give the vocab.txt of a BERT."
            )

    @property
    def ends(self) -> tuple[str, str]:
        """What a text begins and ends with."""
        return "[CLS]", "[SEP]"

    @property
    def unknown(self) -> str:
        """What stands for a word that no pieces make up."""
        return "[UNK]"

    @property
    def pad(self) -> str:
        """What fills texts up."""
        return "[PAD]"

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
        """The pieces of a text, ``##`` before those that go on a word."""
        found: list[str] = self._tokenizer.encode(sentence, add_special_tokens=False).tokens
        return found

    def saved(self) -> Any:
        """What `restored` makes it of, for JSON."""
        return {"pieces": list(self.words), "lower": self.lower}

    @classmethod
    def load(cls, folder: str | Path) -> Pieces:
        """Read ``vocab.txt``, and whether to lower-case from ``tokenizer_config.json``.

        Without that file texts are lower-cased.

        Raises:
            UserError: there is no such file, it is malformed, or of another tokenizer.
        """
        path = Path(folder, FILE)
        try:
            lines = path.read_bytes().decode().split("\n")
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): give as data.pieces the folder of a "
                "BERT with its vocab.txt."
            ) from None
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 ({error}): get the file again.") from None
        words = tuple(line.rstrip("\r") for line in lines)
        words = words[: -1 if words[-1] == "" else None]
        try:
            return cls(words, _lower(Path(folder, SETTINGS)))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def _lower(path: Path) -> bool:
    if not path.is_file():
        return True
    try:
        found = json.loads(path.read_bytes()).get("do_lower_case", True)
    except (ValueError, AttributeError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): get the file again.") from None
    if not isinstance(found, bool):
        raise UserError(f"{path} has do_lower_case {found!r}: true or false was expected.")
    return found


def restored(saved: Mapping[str, Any] | Iterable[str]) -> Vocabulary:
    """The vocabulary of a checkpoint, from what `Vocabulary.saved` gave."""
    if isinstance(saved, Mapping):
        return Pieces(tuple(saved["pieces"]), bool(saved["lower"]))
    return Vocabulary(tuple(saved))
