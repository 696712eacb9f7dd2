"""The words of a caption as states: by a GRU over word vectors, or by BERT.

What systems share that read captions word by word: their hyper-parameters of BERT, the names of its
parts, and the encoder itself.
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
from hmgr_jax.shapes import Array, Bool, Float

TEXTS = ("gru", "bert")


@dataclass(frozen=True)
class ReadsWords(Model):
    """A system with a text side of words; by default BERT's sizes are those of BERT-base.

    ``config.init.bert=FOLDER`` sets them to those of a folder of Hugging Face's.
    """

    bert_layers: int = 12
    bert_width: int = 768
    bert_heads: int = 12
    bert_intermediate: int = 3072
    bert_positions: int = 512
    bert_segments: int = 2
    bert_dropout: float = 0.1

    @property
    def bert(self) -> Sizes | None:
        """The sizes of the BERT that reads captions; None where a GRU does."""
        if getattr(self, "text", "bert") == "gru":
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
        """With BERT."""
        return self.bert is not None

    @property
    def positions(self) -> int:
        """Those of BERT."""
        return self.bert.positions if self.bert else 0

    def check_bert(self) -> None:
        """Refuse sizes that no BERT has.

        Raises:
            UserError: one sentence for the first of them.
        """
        names = ("layers", "width", "heads", "intermediate", "positions", "segments")
        for field in (f"bert_{name}" for name in names):
            if getattr(self, field) < 1:
                raise UserError(
                    f"model.{field} must be at least 1, not {getattr(self, field)}: raise it."
                )
        if self.bert_width % self.bert_heads:
            raise UserError(
                f"model.bert_width is {self.bert_width}, which model.bert_heads, "
                f"{self.bert_heads}, does not divide: change one of them."
            )

    def text_parts(self) -> dict[str, tuple[str, ...]]:
        """The text side, its word vectors, and BERT where it is."""
        if self.bert is None:
            return {"text": ("text",), "words": ("text/words/vectors",)}
        words = "text/bert/embeddings/words"
        return {"text": ("text",), "words": (words,), "bert": ("text/bert",)}


def bert_states(
    sizes: Sizes, features: int, drop: float, dtype: Any, items: Items, keys: Keys | None
) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
    """BERT's states, each mapped to ``features``, and their mask; within a compact module.

    In training a share ``drop`` of the words is hidden from BERT and from all that follows: the
    others keep their positions, and the mark of the beginning stays.
    """
    tokens = items["tokens"]
    mask = length_mask(items["lengths"], tokens.shape[1])
    mask = drop_nodes(mask, drop, keys, "words")
    own = keys.named("bert") if keys is not None else None
    states = Bert(sizes, dtype, name="bert")(tokens, mask, own)
    return Linear(features, dtype=dtype, name="project")(states), mask


def word_states(
    model: Any, items: Items, keys: Keys | None
) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
    """States of the words of captions by what ``model.text`` says; within a compact module."""
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
        name="words",
    )
    found: tuple[Array, Array] = words(items["tokens"], items["lengths"], keys)
    return found
