"""Texts as ids by the ``tokenizer.json`` of a transformers folder, of any kind of tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError

FILE = "tokenizer.json"
LOWER = ("GemmaTokenizer", "Siglip2Tokenizer")
"""Classes whose texts SigLIP 2 was trained with in lower case, which ``tokenizer.json`` may not
say."""


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer; raises ``ValueError`` if it cannot be read or lacks the padding mark."""

    content: str
    """The whole of ``tokenizer.json``, so that a checkpoint can hold it."""
    length: int
    """All texts are cut and padded to this number of tokens, end marks included."""
    pad: str
    """The token of padding."""
    lower: bool = False
    """Whether texts are lower-cased before."""

    def __post_init__(self) -> None:
        if self._tokenizer.token_to_id(self.pad) is None:
            raise ValueError(f"its padding token {self.pad!r} is not in the vocabulary")

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
        pad = found.token_to_id(self.pad)
        found.enable_truncation(self.length)
        found.enable_padding(length=self.length, pad_id=pad or 0, pad_token=self.pad)
        return found

    @property
    def largest_id(self) -> int:
        """The largest id of its vocabulary."""
        return int(max(self._tokenizer.get_vocab().values()))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Ids int32 [len(texts), length]."""
        given = [text.lower() for text in texts] if self.lower else list(texts)
        found = [encoding.ids for encoding in self._tokenizer.encode_batch(given)]
        return np.asarray(found, np.int32).reshape(len(given), self.length)


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
