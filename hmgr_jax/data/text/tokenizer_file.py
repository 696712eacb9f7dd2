"""Vocabularies from the ``tokenizer.json`` of a transformers folder, of any kind of tokenizer.

Checkpoints store the whole file, so that a trained run does not need the folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError

FILE = "tokenizer.json"
LOWER = ("GemmaTokenizer", "Siglip2Tokenizer")
"""Classes whose texts SigLIP 2 was trained with in lower case, which ``tokenizer.json`` may not
say."""


@dataclass(frozen=True)
class TokenizerFile(Vocabulary):
    """A tokenizer; raises ``ValueError`` if it cannot be read or lacks the padding mark."""

    words: tuple[str, ...] = field(init=False, repr=False, compare=False)
    content: str
    """The whole of ``tokenizer.json``."""
    length: int
    """The largest number of tokens of a text, end marks included."""
    padding: str
    """The token of padding."""
    lower: bool = False
    """Whether texts are lower-cased before."""
    whole_words: ClassVar[bool] = False

    def __post_init__(self) -> None:
        by_id = {i: token for token, i in self._tokenizer.get_vocab().items()}
        words = tuple(by_id.get(i, "") for i in range(max(by_id) + 1))  # some ids have no token
        object.__setattr__(self, "words", words)
        if self.padding not in self:
            raise ValueError(f"its padding token {self.padding!r} is not in the vocabulary")

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise UserError(
                f"{FILE} needs the package tokenizers: install it with pip install "
                "'hmgr-jax[bert]'."
            ) from None
        try:
            found = Tokenizer.from_str(self.content)
        except Exception as error:  # the package raises nothing more special
            raise ValueError(f"it cannot be read: {error}") from None
        found.no_truncation()
        found.no_padding()
        return found

    @cached_property
    def _ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = self._tokenizer.encode("a")
        marked, words = found.special_tokens_mask, [self.words[i] for i in found.ids]
        before = marked.index(0) if 0 in marked else len(marked)
        after = len(marked) - (marked[::-1].index(0) if 0 in marked else 0)
        return tuple(words[:before]), tuple(words[after:])

    @property
    def ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Marks before and after every text, as the tokenizer adds them."""
        return self._ends

    @property
    def pad(self) -> str:
        """The mark of padding."""
        return self.padding

    @property
    def unknown(self) -> str:
        """The mark of padding: the tokenizer itself replaces what it does not know."""
        return self.padding

    def tokenize(self, sentence: str) -> list[str]:
        """Split a text into tokens, without end marks."""
        text = sentence.lower() if self.lower else sentence
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self.words[i] for i in ids]

    def padded(self, texts: Sequence[str]) -> np.ndarray:
        """Ids int32 [len(texts), length] of texts, cut and padded to ``length``."""
        most = self.length - self.num_ends
        found = np.full((len(texts), self.length), self.id(self.padding), np.int32)
        for row, text in zip(found, texts, strict=True):
            ids = self.encode(self.tokenize(text)[:most])
            row[: len(ids)] = ids
        return found

    def saved(self) -> Any:
        """JSON form, for `hmgr_jax.data.text.pieces.vocabulary_from_json`."""
        own = {"length": self.length, "padding": self.padding, "lower": self.lower}
        return {"tokenizer": self.content, **own}


def from_settings(content: str, settings: Mapping[str, Any], longest: int) -> TokenizerFile:
    """The tokenizer of ``tokenizer.json`` and the settings of ``tokenizer_config.json``.

    Args:
        content: of ``tokenizer.json``.
        settings: ``pad_token``, ``model_max_length`` and ``tokenizer_class`` count.
        longest: the number of places of the network.

    Raises ``ValueError`` if it cannot be read or has no padding token.
    """
    pad = settings.get("pad_token")
    if isinstance(pad, Mapping):  # a token with its flags
        pad = pad.get("content")
    if not isinstance(pad, str):
        raise ValueError("its settings name no pad_token")
    length = settings.get("model_max_length", longest)
    if not isinstance(length, int) or not 0 < length <= longest:  # 1e30 for no limit
        length = longest
    kind = str(settings.get("tokenizer_class", "")).removesuffix("Fast")
    return TokenizerFile(content, length, pad, kind in LOWER)
