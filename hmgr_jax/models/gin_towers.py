"""The two paths of GIN and SCKR: texts over the graph of their vocabulary, and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.dropout import Keys, dropout
from hmgr_jax.layers.linear import Linear, uniform
from hmgr_jax.layers.masking import l2n, length_mask, masked_max, masked_mean
from hmgr_jax.layers.regions import read_regions, scale_features
from hmgr_jax.layers.vocabulary_graph import ChebyshevLayer
from hmgr_jax.layers.words import WordVectors, forget_words
from hmgr_jax.models.base import Items
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

if TYPE_CHECKING:
    from hmgr_jax.models.gin import GIN

MARKS = 4
"""<pad>, <start>, <end> and <unk> are no words of a bag."""
STATES = 50
"""Features of a node by ``bilstm50``, half of each direction."""
WIDTHS = (3, 4, 5)
"""Of the filters of ``textcnn``."""
BAG_NORMS = ("l2", "max", "none")


def words_in(tokens: Int[Array, "B L"], lengths: Int[Array, " B"]) -> Bool[Array, "B L"]:
    """Which tokens are words, and not padding or marks."""
    return length_mask(lengths, tokens.shape[1]) & (tokens >= MARKS)


def on_vocabulary(
    tokens: Int[Array, "B L"], values: Float[Array, "B L F"], size: int
) -> Float[Array, "V B F"]:
    """The sum of the values of all mentions of every word."""
    batch, length = tokens.shape
    row = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, length))
    nothing = jnp.zeros((size, batch, values.shape[2]), jnp.float32)
    return nothing.at[tokens, row].add(values)


def normed_bag(bag: Float[Array, "V B 1"], norm: str) -> Float[Array, "V B 1"]:
    """Bags of unit length, or of largest count 1, or as they are; an empty bag stays 0."""
    if norm == "none":
        return bag
    if norm == "max":
        return bag / jnp.maximum(jnp.max(jnp.abs(bag), axis=0, keepdims=True), 1e-8)
    return jnp.moveaxis(l2n(jnp.moveaxis(bag, 0, -1)), -1, 0)


class ImagePath(nn.Module):
    """A vector of features, or the mean of those of regions, through an MLP."""

    model: GIN

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B D"]:
        """Hidden layers with a ReLU, and a linear one."""
        m = self.model
        if m.regions:
            drops = m.region_dropout, m.feature_dropout
            x = masked_mean(*read_regions(items, m.region_scale, *drops, keys))
        else:
            x = scale_features(items["features"], m.region_scale)
            x = dropout(x, m.feature_dropout, keys, "features")
        for number, size in enumerate(m.image_hidden):
            x = jax.nn.relu(Linear(size, dtype=jnp.dtype(m.dtype), name=f"hidden{number}")(x))
        return Linear(m.dim, dtype=jnp.dtype(m.dtype), name="out")(x)


class TextPath(nn.Module):
    """A text over the word graph, or one of the two baselines without it."""

    model: GIN

    @nn.compact
    def __call__(self, items: Items, tables: Tree, keys: Keys | None) -> Float[Array, "B D"]:
        """Node features, graph convolutions and a linear layer over all nodes."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        out = Linear(m.dim, dtype=dtype, name="out")
        if m.text_model == "textcnn":
            return out(WordCNN(m, name="words")(items, keys))
        x = self._nodes(items, tables, keys)
        if m.text_model == "gcn":
            graph = tables["graph"] if m.uses_graph else {}
            for layer, features in enumerate(m.filters):
                x = ChebyshevLayer(features, m.cheb_k, dtype, name=f"graph{layer}")(graph, x)
        x = jnp.swapaxes(x, 0, 1).reshape(x.shape[1], -1)
        if m.text_model == "mlp_bow":
            hidden = m.bow_hidden or m.equal_hidden()
            x = jax.nn.relu(Linear(hidden, dtype=dtype, name="hidden")(x))
        return out(x)

    def _nodes(self, items: Items, tables: Tree, keys: Keys | None) -> Float[Array, "V B F"]:
        m = self.model
        if m.text_features:
            bag = jnp.swapaxes(items["features"].astype(jnp.float32), 0, 1)[:, :, None]
        else:
            given, lengths = items["tokens"], items["lengths"]
            mask = length_mask(lengths, given.shape[1])
            tokens = forget_words(given, mask, m.word_dropout, keys)
            if m.node_feature == "bilstm50":
                states = WordStates(m, name="words")(tokens, lengths, keys)
                states = jnp.where(words_in(tokens, lengths)[:, :, None], states, 0.0)
                return on_vocabulary(tokens, states, m.vocabulary_size)
            ones = words_in(tokens, lengths)[:, :, None].astype(jnp.float32)
            bag = on_vocabulary(tokens, ones, m.vocabulary_size)
        if m.node_feature == "tfidf":
            bag = bag * tables["rarity"][:, None, None]
        return normed_bag(bag, m.bag_norm)


class WordStates(nn.Module):
    """States of a bidirectional LSTM over word vectors, both directions side by side."""

    model: GIN

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B L"], lengths: Int[Array, " B"], keys: Keys | None
    ) -> Float[Array, "B L 50"]:
        """States of all words; what stands at padding is of no use."""
        m = self.model
        x = WordVectors(m.vocabulary_size, m.word_dim, name="vectors")(tokens)
        x = dropout(x, m.vector_dropout, keys, "word_vectors")

        def direction(name: str, reverse: bool) -> Array:
            cell = nn.OptimizedLSTMCell(STATES // 2, name=name)
            run: Any = nn.RNN(cell, reverse=reverse, keep_order=True, name=f"{name}_run")
            # Not drawn: the first carry is zero.
            found: Array = run(x, seq_lengths=lengths, init_key=jax.random.key(0))
            return found

        return jnp.concatenate([direction("forward", False), direction("backward", True)], axis=-1)


class WordCNN(nn.Module):
    """Filters over 3, 4 and 5 words in a row, of each the maximum (Kim, EMNLP 2014)."""

    model: GIN

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B F"]:
        """As many filters of each width as the text path has features in all, ``cnn_filters``."""
        m = self.model
        mask = length_mask(items["lengths"], items["tokens"].shape[1])
        tokens = forget_words(items["tokens"], mask, m.word_dropout, keys)
        x = WordVectors(m.vocabulary_size, m.word_dim, name="vectors")(tokens)
        x = dropout(jnp.where(mask[:, :, None], x, 0.0), m.vector_dropout, keys, "word_vectors")
        found = []
        for width in WIDTHS:
            bound = uniform((width * m.word_dim) ** -0.5)
            shape = (width, m.word_dim, m.cnn_filters)
            kernel: Array = self.param(f"kernel{width}", bound, shape, jnp.float32)
            bias: Array = self.param(f"bias{width}", bound, shape[2:], jnp.float32)
            # Windows begin at a word, so that a caption has as many whatever its padding.
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                (1,),
                [(0, width - 1)],
                dimension_numbers=("NWC", "WIO", "NWC"),
                precision=jax.lax.Precision.HIGHEST,
            )
            found.append(masked_max(jax.nn.relu(y + bias[None, None]), mask))
        return jnp.concatenate(found, axis=-1)
