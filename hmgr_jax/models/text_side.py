"""Text towers that return a state per word: word vectors, a GRU over them, BERT, or CLIP's.

Systems with such a tower share the options of BERT and CLIP, the names of its parts and the
encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers import transformer
from hmgr_jax.layers.bert import Bert, Sizes
from hmgr_jax.layers.clip_text import TextSizes, TextTower
from hmgr_jax.layers.dropout import Keys, drop_nodes
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.layers.words import WordEncoder
from hmgr_jax.models.base import Items, Model
from hmgr_jax.models.options import option
from hmgr_jax.shapes import Array, Bool, Float

TEXTS = ("gru", "words", "bert", "clip")
STATES = "states"
"""States of the tokens, float16 [n, L, H]: in training, items have them where the text
tower is frozen (`hmgr_jax.training.token_states`)."""


@dataclass(frozen=True)
class ReadsTokens(Model):
    """Base of systems with the text tower of a CLIP or SigLIP; the default sizes are CLIP-B/32's.

    ``config.init.clip=FOLDER`` sets them to the sizes of a folder as transformers saves it.
    """

    clip_kind: str = option("clip", choices=("clip", "siglip"))
    """The form of the towers: clip has causal texts with an end mark, siglip padded texts."""
    clip_width: int = option(512, at_least=1)
    clip_layers: int = option(12, at_least=1)
    clip_heads: int = option(8, at_least=1)
    clip_intermediate: int = option(2048, at_least=1)
    clip_activation: str = option("quick_gelu", choices=tuple(transformer.ACTIVATIONS))
    clip_epsilon: float = 1e-5
    clip_positions: int = option(77, at_least=1)
    """Most tokens of a text; siglip pads every text to it."""
    clip_pad: int = 0
    """Id of the padding."""
    clip_end: int = 2
    """Id of the end mark of clip's texts, by default ``<end>``; -1: the largest id of a text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self, "clip")

    def clip_text(self, projection: int | None) -> TextSizes:
        """Sizes of the text tower, with vectors of size ``projection``."""
        return TextSizes(
            encoder_sizes(self, "clip"),
            getattr(self, "vocabulary_size", 0),
            self.clip_positions,
            projection,
            causal=self.clip_kind == "clip",
            end=self.clip_end if self.clip_end >= 0 else None,
        )


def encoder_sizes(model: Any, prefix: str) -> transformer.Sizes:
    """The sizes of a Transformer from the options ``PREFIX_width`` and so on."""
    names = ("width", "layers", "heads", "intermediate", "activation", "epsilon")
    return transformer.Sizes(*(getattr(model, f"{prefix}_{name}") for name in names))


def check_heads(model: Any, prefix: str) -> None:
    """Raise `UserError` unless ``PREFIX_heads`` divides ``PREFIX_width``."""
    width, heads = getattr(model, f"{prefix}_width"), getattr(model, f"{prefix}_heads")
    if width % heads:
        raise UserError(
            f"model.{prefix}_heads must divide model.{prefix}_width, {width}, got {heads}: change "
            "one of them."
        )


@dataclass(frozen=True)
class ReadsWords(ReadsTokens):
    """Base of systems that read words; the default sizes of BERT are BERT-base.

    ``config.init.bert=FOLDER`` sets them to the sizes of a folder in Hugging Face's layout.
    """

    text: str = option("gru", choices=TEXTS)
    """``words`` are word vectors alone, ``gru`` a GRU over them."""
    bert_layers: int = option(12, at_least=1)
    bert_width: int = option(768, at_least=1)
    bert_heads: int = option(12, at_least=1)
    bert_intermediate: int = option(3072, at_least=1)
    bert_positions: int = option(512, at_least=1)
    bert_segments: int = option(2, at_least=1)
    bert_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self, "bert")

    @property
    def bert(self) -> Sizes | None:
        """Sizes of the BERT that reads captions; None without BERT."""
        if self.text != "bert":
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
        """Whether captions are read by BERT or CLIP."""
        return self.text in ("bert", "clip")

    @property
    def positions(self) -> int:
        """The longest text that BERT or CLIP can read; 0 (no limit) without them."""
        return {"bert": self.bert_positions, "clip": self.clip_positions}.get(self.text, 0)

    def text_parts(self) -> dict[str, tuple[str, ...]]:
        """Parts of the text tower: the full tower, the word vectors, and BERT or CLIP's tower."""
        if not self.reads_pieces:
            return {"text": ("text",), "words": ("text/words/vectors",)}
        tower = f"text/{self.text}"
        words = {"bert": f"{tower}/embeddings/words", "clip": f"{tower}/words"}[self.text]
        return {"text": ("text",), "words": (words,), self.text: (tower,)}


def tower_states(
    model: Any, items: Items, keys: Keys | None
) -> tuple[Float[Array, "B L H"], Bool[Array, "B L"]]:
    """States of BERT or of CLIP's text tower, and their mask; call in a compact module.

    In training a share ``word_dropout`` of the tokens is masked out, in the tower and after it. The
    other tokens keep their positions.
    """
    if model.text == "clip":
        return read_tokens(model, items, keys, drop=model.word_dropout)[:2]
    mask = length_mask(items["lengths"], items["tokens"].shape[1])
    mask = drop_nodes(mask, model.word_dropout, keys, "words")
    own = keys.named("bert") if keys is not None else None
    bert = Bert(model.bert, jnp.dtype(model.dtype), name="bert")
    return bert(items["tokens"], mask, own), mask


def read_tokens(
    model: Any,
    items: Items,
    keys: Keys | None = None,
    *,
    projection: int | None = None,
    drop: float = 0.0,
    checkpoint: bool = False,
) -> tuple[Float[Array, "B L H"], Bool[Array, "B L"], Float[Array, "B E"]]:
    """States, their mask, and vectors of the text tower ``clip``; call in a compact module.

    In training a share ``drop`` of the tokens is masked out, in the tower and after it.
    """
    sizes = model.clip_text(projection)
    tokens, length = items["tokens"], items["tokens"].shape[1]
    inside = length_mask(items["lengths"], length)
    mask = drop_nodes(inside, drop, keys, "words")
    # SigLIP's padding is seen, and its text ends at the last place.
    more = ((0, 0), (0, 0 if sizes.causal else sizes.positions - length))
    ids = jnp.pad(jnp.where(inside, tokens, model.clip_pad), more, constant_values=model.clip_pad)
    seen = None if mask is inside else ~jnp.pad(inside & ~mask, more)
    tower = TextTower(sizes, jnp.dtype(model.dtype), checkpoint, name="clip")
    states, vectors = tower(ids, seen)
    return states[:, :length], mask, vectors


def word_states(
    model: Any, items: Items, keys: Keys | None
) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
    """States of words by ``model.text``, and their mask; call in a compact module.

    Items with `STATES` are not read by the tower, and their tokens are masked out after it only.
    """
    dtype = jnp.dtype(model.dtype)
    if model.reads_pieces:
        if STATES in items:
            mask = length_mask(items["lengths"], items["tokens"].shape[1])
            mask = drop_nodes(mask, model.word_dropout, keys, "words")
            states = jnp.where(mask[:, :, None], items[STATES].astype(jnp.float32), 0.0)
        else:
            states, mask = tower_states(model, items, keys)
        return Linear(model.dim, dtype=dtype, name="project")(states), mask
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
