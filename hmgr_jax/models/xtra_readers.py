"""The two readers of XTRA: one stream over everything (VisualBERT), or MCAN.

Both take a question, the captions and pictures that were retrieved for it, and the regions of its
picture, and give the vector that is classified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers import bert
from hmgr_jax.layers.coattention import AttentionFlat, Guided
from hmgr_jax.layers.dropout import Keys, dropout
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.layers.regions import scale_features
from hmgr_jax.layers.words import WordVectors
from hmgr_jax.models.base import Items
from hmgr_jax.shapes import Array, Bool, Float, Int

if TYPE_CHECKING:
    from hmgr_jax.models.xtra import XTRA

LAST = 2
"""The last word of a question stands so far from its end, before ``<end>``."""


class Retrieved(NamedTuple):
    """What was retrieved for each question, best first."""

    tokens: Int[Array, "B K C"]
    """Words of captions and ``<end>``; K is 0 where no captions are read."""
    words: Bool[Array, "B K C"]
    """Which of them are no padding, of captions that are there."""
    vectors: Float[Array, "B P E"]
    """Of pictures; P is 0 where none are read."""
    pictures: Bool[Array, "B P"]
    """Which of them are there."""


class VisualBert(nn.Module):
    """``[CLS] question [SEP] caption [SEP] ... ‖ regions`` in one stream (Li et al., 2019).

    Segments are 0 for the question and 1 for captions; regions and retrieved pictures have two
    vectors of their own. The state of the last word of the question goes on to the head.
    """

    model: XTRA

    @nn.compact
    def __call__(self, items: Items, found: Retrieved, keys: Keys | None) -> Float[Array, "B W"]:
        """The vector that is classified."""
        m = self.model
        dtype, sizes, lengths = jnp.dtype(m.dtype), m.sizes, items["lengths"]
        seen = Visual(m, name="visual")(items, found, keys)
        states = Stream(sizes, dtype, name="bert")(self._text(items, found), seen, keys)
        last = jnp.maximum(lengths - LAST, 0)[:, None, None]
        pooled = jnp.take_along_axis(states, last, axis=1)[:, 0]
        pooled = dropout(pooled, m.head_dropout, keys, "pooled")
        hidden = jax.nn.gelu(Linear(m.width, dtype=dtype, name="hidden")(pooled), approximate=False)
        return bert.layer_norm("norm")(hidden)

    def _text(self, items: Items, found: Retrieved) -> Text:
        """Ids, positions, segments and mask [B, L + K C] of the question and all captions."""
        tokens, lengths = items["tokens"], items["lengths"]
        batch, length = tokens.shape
        places = jnp.broadcast_to(jnp.arange(length)[None, :], tokens.shape)
        within = jnp.broadcast_to(
            jnp.arange(found.tokens.shape[2])[None, None, :], found.tokens.shape
        )
        if self.model.caption_positions == "run_on":
            sizes = jnp.sum(found.words, axis=2)
            before = lengths[:, None] + jnp.cumsum(sizes, axis=1) - sizes
            within = jnp.where(found.words, within + before[:, :, None], 0)
        segments = jnp.ones(found.tokens.shape, jnp.int32)
        parts = (found.tokens, within, segments, found.words)
        own = (tokens, places, jnp.zeros_like(tokens), length_mask(lengths, length))
        joined = [
            jnp.concatenate([a, b.reshape(batch, -1)], axis=1)
            for a, b in zip(own, parts, strict=True)
        ]
        return Text(*joined)


class Text(NamedTuple):
    """Words in one row, of the question and of all captions."""

    ids: Int[Array, "B L"]
    positions: Int[Array, "B L"]
    segments: Int[Array, "B L"]
    mask: Bool[Array, "B L"]


class Stream(nn.Module):
    """BERT, with what is seen after the words; its parts have the names of `bert.Bert`'s."""

    sizes: bert.Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        text: Text,
        seen: tuple[Float[Array, "B N W"], Bool[Array, "B N"]],
        keys: Keys | None,
    ) -> Float[Array, "B M W"]:
        """States of all words and then of all that is seen."""
        embeddings = bert.Embeddings(self.sizes, name="embeddings")
        x = embeddings(text.ids, text.positions, text.segments, keys)
        x = jnp.concatenate([x, seen[0]], axis=1)
        mask = jnp.concatenate([text.mask, seen[1]], axis=1)
        return bert.Encoder(self.sizes, self.dtype, name="encoder")(x, mask, keys)


class Visual(nn.Module):
    """Regions, and vectors of retrieved pictures, each kind by a map and a vector of its own."""

    model: XTRA

    @nn.compact
    def __call__(
        self, items: Items, found: Retrieved, keys: Keys | None
    ) -> tuple[Float[Array, "B N W"], Bool[Array, "B N"]]:
        """Vectors and their mask."""
        m = self.model
        dtype = jnp.dtype(m.dtype)
        kinds = self.param("kinds", bert.START, (2, m.width), jnp.float32)
        regions = scale_features(items["regions"], m.region_scale)
        mask = length_mask(items["n_regions"], regions.shape[1])
        # What stands in padding must be finite on the way to the attention that leaves it out.
        regions = jnp.where(mask[:, :, None], regions, 0.0)
        x = Linear(m.width, dtype=dtype, name="regions")(regions) + kinds[None, :1]
        if m.retrieve != "captions":
            other = Linear(m.width, dtype=dtype, name="pictures")(found.vectors) + kinds[None, 1:]
            x, mask = jnp.concatenate([x, other], 1), jnp.concatenate([mask, found.pictures], 1)
        return dropout(bert.layer_norm("norm")(x), m.dropout, keys, "visual"), mask


class MCAN(nn.Module):
    """Deep modular co-attention (Yu et al., CVPR 2019), the captions read like the question.

    An LSTM reads the question and, apart, every caption; their states stand in one sequence, told
    apart by a learned vector of the source. Layers of self-attention over it, then layers over the
    regions that are guided by it; both sides are pooled by attention, added and normed.
    """

    model: XTRA

    @nn.compact
    def __call__(self, items: Items, found: Retrieved, keys: Keys | None) -> Float[Array, "B W"]:
        """The vector that is classified."""
        m = self.model
        dtype, batch = jnp.dtype(m.dtype), items["tokens"].shape[0]
        count, size = found.tokens.shape[1:]
        read = WordLSTM(m, name="words")
        sources = self.param("sources", bert.START, (2, m.width), jnp.float32)
        words = length_mask(items["lengths"], items["tokens"].shape[1])
        text = read(items["tokens"], items["lengths"]) + sources[None, :1]
        if count:
            of_each = jnp.sum(found.words, axis=2).reshape(-1)
            told = read(found.tokens.reshape(batch * count, size), of_each)
            told = told.reshape(batch, count * size, -1) + sources[None, 1:]
            text = jnp.concatenate([text, told], axis=1)
            words = jnp.concatenate([words, found.words.reshape(batch, -1)], axis=1)
        text = dropout(jnp.where(words[:, :, None], text, 0.0), m.dropout, keys, "words")
        seen, regions = Visual(m, name="visual")(items, found, keys)
        for number in range(m.layers):
            text = Guided(m.sizes, dtype, name=f"text{number}")(text, words, None, None, keys)
        for number in range(m.layers):
            layer = Guided(m.sizes, dtype, name=f"visual{number}")
            seen = layer(seen, regions, text, words, keys)
        flat = [
            AttentionFlat(m.width, m.head_dropout, dtype, name=name)(x, mask, keys)
            for name, x, mask in (("flat_text", text, words), ("flat_visual", seen, regions))
        ]
        return bert.layer_norm("norm")(flat[0] + flat[1])


class WordLSTM(nn.Module):
    """States of an LSTM over word vectors."""

    model: XTRA

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B L"], lengths: Int[Array, " B"]
    ) -> Float[Array, "B L W"]:
        """States of all words; those at padding are of no use."""
        x = WordVectors(self.model.vocabulary_size, self.model.word_dim, name="vectors")(tokens)
        run: Any = nn.RNN(nn.OptimizedLSTMCell(self.model.width, name="cell"), name="run")
        # Not drawn: the first carry is zero.
        found: Array = run(x, seq_lengths=lengths, init_key=jax.random.key(0))
        return found
