"""Text towers that return a state per word: word vectors, a GRU over them, or BERT.

Systems with such a tower share the options of BERT, the names of its parts and the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers.bert import Bert, Sizes
from hmgr_jax.layers.dropout import Keys, drop_nodes
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.layers.words import WordEncoder
from hmgr_jax.models.base import Items, Model
from hmgr_jax.models.options import option
from hmgr_jax.shapes import Array, Bool, Float

TEXTS = ("gru", "words", "bert")
STATES = "states"
"""BERT's states of the tokens, float16 [n, L, H]: in training, items have them where BERT is frozen
(`hmgr_jax.training.token_states`)."""


@dataclass(frozen=True)
class ReadsWords(Model):
    """Base of systems that read words; the default sizes of BERT are BERT-base.

    ``config.init.bert=FOLDER`` sets them to the sizes of a folder in Hugging Face's layout.
    """

    bert_layers: int = option(12, at_least=1)
    bert_width: int = option(768, at_least=1)
    bert_heads: int = option(12, at_least=1)
    bert_intermediate: int = option(3072, at_least=1)
    bert_positions: int = option(512, at_least=1)
    bert_segments: int = option(2, at_least=1)
    bert_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bert_width % self.bert_heads:
            raise UserError(
                f"model.bert_heads must divide model.bert_width, {self.bert_width}, got "
                f"{self.bert_heads}: change one of them."
            )

    def check_bert(self) -> None:
        """Check the sizes of BERT, in systems whose own checks do not call ``super()``."""
        ReadsWords.__post_init__(self)

    @property
    def bert(self) -> Sizes | None:
        """Sizes of the BERT that reads captions; None without BERT."""
        if getattr(self, "text", "bert") != "bert":
            return None
        return Sizes(
            getattr(self, "vocabulary_size", 0),
            self.bert_width,
            self.bert_layers,
            self.bert_heads,
            self.bert_intermediate,
            self.bert_positions,
            self.bert_segments,
            self.bert_dropout,
        )

    @property
    def reads_pieces(self) -> bool:
        """Whether captions are read by BERT."""
        return self.bert is not None

    @property
    def positions(self) -> int:
        """The longest text that BERT can read; 0 (no limit) without BERT."""
        return self.bert.positions if self.bert else 0

    def text_parts(self) -> dict[str, tuple[str, ...]]:
        """Parts of the text tower: the full tower, the word vectors, and BERT."""
        if self.bert is None:
            return {"text": ("text",), "words": ("text/words/vectors",)}
        words = "text/bert/embeddings/words"
        return {"text": ("text",), "words": (words,), "bert": ("text/bert",)}


def bert_states(
    sizes: Sizes, features: int, drop: float, dtype: Any, items: Items, keys: Keys | None
) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
    """BERT's states, each mapped to ``features``, and their mask; call in a compact module.

    In training a share ``drop`` of the words is masked out, in BERT and after it. The other words
    keep their positions, and the start token stays. Items with `STATES` are not read by BERT, and
    their words are masked out after it only.
    """
    tokens = items["tokens"]
    mask = length_mask(items["lengths"], tokens.shape[1])
    mask = drop_nodes(mask, drop, keys, "words")
    if STATES in items:
        states = jnp.where(mask[:, :, None], items[STATES].astype(jnp.float32), 0.0)
    else:
        own = keys.named("bert") if keys is not None else None
        states = Bert(sizes, dtype, name="bert")(tokens, mask, own)
    return Linear(features, dtype=dtype, name="project")(states), mask


def word_states(
    model: Any, items: Items, keys: Keys | None
) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
    """States of words by ``model.text``, and their mask; call in a compact module."""
    dtype = jnp.dtype(model.dtype)
    if model.bert is not None:
        return bert_states(model.bert, model.dim, model.word_dropout, dtype, items, keys)
    words: nn.Module = WordEncoder(
        model.vocabulary_size,
        model.word_dim,
        model.dim,
        model.word_dropout,
        model.vector_dropout,
        dtype,
        model.text == "gru",
        name="words",
    )
    found: tuple[Array, Array] = words(items["tokens"], items["lengths"], keys)
    return found
