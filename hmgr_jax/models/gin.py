"""GIN (Yu et al., PCM 2018) and SCKR (Yu et al., KSEM 2019): texts over a graph of words.

All texts share one graph whose V nodes are the words of the vocabulary. A text gives word
counts X [V, F] as node features; Chebyshev convolutions propagate them to related words, and a
linear layer over all nodes gives the text vector t [D]. A small MLP maps a picture to v [D]:

    L = -D^-1/2 A D^-1/2,   T_0 = X, T_1 = L X, T_k = 2 L T_k-1 - T_k-2
    X <- relu([T_0 .. T_K-1] W + b)   for every layer of ``filters``
    s(t, v) = w·dropout(t ⊙ v) + b_s
    Loss = Var₊(s) + Var₋(s) + λ [margin - (mean₊(s) - mean₋(s))]_+

over matching (+) and other (-) pairs of the batch. GIN connects words with similar vectors (S);
the preset ``sckr`` also connects words that co-occur (C) or are related in a knowledge base (K).
docs/models/gin.md has the options and the deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.layers import vocabulary_graph as graphs
from hmgr_jax.layers.dropout import Keys, dropout, uniform_numbers
from hmgr_jax.layers.linear import Linear, einsum, uniform
from hmgr_jax.layers.masking import l2n, length_mask, masked_max, masked_mean
from hmgr_jax.layers.regions import SCALES, read_regions, scale_features
from hmgr_jax.layers.words import WordVectors, forget_words
from hmgr_jax.losses.moments import mean_variance
from hmgr_jax.models.base import (
    Axis,
    Codes,
    Feature,
    Items,
    Parts,
    Plan,
    Terms,
    Variables,
    regions_and_tokens,
)
from hmgr_jax.models.corpus import Corpus
from hmgr_jax.models.options import option
from hmgr_jax.models.vector_scored import VectorScored
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

RELATIONS = "SCK"
MARKS = 4
"""<pad>, <start>, <end> and <unk> are not counted as words."""
STATES = 50
"""Features of a node by ``bilstm50``, half of them from each direction."""
WIDTHS = (3, 4, 5)
"""Widths of the filters of ``textcnn`` in words."""
FILTERS = 100
"""Number of filters of ``textcnn`` per width."""
DENSE_SHARE = 0.005
"""Edges over squared nodes from which ``graph`` auto is dense."""


# --- towers -----------------------------------------------------------------------------------


class TextPath(nn.Module):
    """A text over the word graph, or one of two baselines without a graph."""

    model: GIN

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None, tables: Tree) -> Float[Array, "B D"]:
        """Node features, graph convolutions and a linear layer over all nodes."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        out = Linear(m.dim, dtype=dtype, name="out")
        if m.text_model == "textcnn":
            return out(WordCNN(m, name="words")(items, keys))
        x = self._node_features(items, tables, keys)
        if m.text_model == "gcn":
            graph = tables["graph"] if m.uses_graph else {}
            for layer, features in enumerate(m.filters):
                x = graphs.ChebyshevLayer(features, m.cheb_k, dtype, name=f"graph{layer}")(graph, x)
        x = jnp.swapaxes(x, 0, 1).reshape(x.shape[1], -1)
        if m.text_model == "mlp_bow":
            x = jax.nn.relu(Linear(_equal_hidden(m), dtype=dtype, name="hidden")(x))
        return out(x)

    def _node_features(
        self, items: Items, tables: Tree, keys: Keys | None
    ) -> Float[Array, "V B F"]:
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
        return jnp.moveaxis(l2n(jnp.moveaxis(bag, 0, -1)), -1, 0)


class ImagePath(nn.Module):
    """A vector of features, or the mean of region features, through an MLP."""

    model: GIN

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B D"]:
        """Hidden layers with a ReLU, and a linear layer."""
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


class WordStates(nn.Module):
    """States of a bidirectional LSTM over word vectors, both directions side by side."""

    model: GIN

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B L"], lengths: Int[Array, " B"], keys: Keys | None
    ) -> Float[Array, "B L 50"]:
        """States of all words; states at padding are undefined."""
        m = self.model
        x = WordVectors(m.vocabulary_size, m.word_dim, name="vectors")(tokens)
        x = dropout(x, m.vector_dropout, keys, "word_vectors")

        def direction(name: str, reverse: bool) -> Array:
            cell = nn.OptimizedLSTMCell(STATES // 2, name=name)
            run: Any = nn.RNN(cell, reverse=reverse, keep_order=True, name=f"{name}_run")
            # No random numbers: the first carry is zero.
            found: Array = run(x, seq_lengths=lengths, init_key=jax.random.key(0))
            return found

        return jnp.concatenate([direction("forward", False), direction("backward", True)], axis=-1)


class WordCNN(nn.Module):
    """Filters over 3, 4 and 5 consecutive words and their maxima (Kim, EMNLP 2014)."""

    model: GIN

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B F"]:
        """The maximum of every filter over the caption; F = 3 · FILTERS."""
        m = self.model
        mask = length_mask(items["lengths"], items["tokens"].shape[1])
        tokens = forget_words(items["tokens"], mask, m.word_dropout, keys)
        x = WordVectors(m.vocabulary_size, m.word_dim, name="vectors")(tokens)
        x = dropout(jnp.where(mask[:, :, None], x, 0.0), m.vector_dropout, keys, "word_vectors")
        found = []
        for width in WIDTHS:
            bound = uniform((width * m.word_dim) ** -0.5)
            shape = (width, m.word_dim, FILTERS)
            kernel: Array = self.param(f"kernel{width}", bound, shape, jnp.float32)
            bias: Array = self.param(f"bias{width}", bound, shape[2:], jnp.float32)
            # Windows begin at words: their number does not depend on padding.
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


def words_in(tokens: Int[Array, "B L"], lengths: Int[Array, " B"]) -> Bool[Array, "B L"]:
    """True for tokens that are words, not padding or special tokens."""
    return length_mask(lengths, tokens.shape[1]) & (tokens >= MARKS)


def on_vocabulary(
    tokens: Int[Array, "B L"], values: Float[Array, "B L F"], size: int
) -> Float[Array, "V B F"]:
    """Sum the values of all occurrences of every word at its node."""
    batch, length = tokens.shape
    row = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, length))
    nothing = jnp.zeros((size, batch, values.shape[2]), jnp.float32)
    return nothing.at[tokens, row].add(values)


def _equal_hidden(m: GIN) -> int:
    """The width of ``mlp_bow`` with as many parameters as the graph path."""
    before = STATES if m.node_feature == "bilstm50" else 1
    sizes = list(zip((before, *m.filters), m.filters, strict=False))
    own = sum(m.cheb_k * a * b + m.nodes * b for a, b in sizes)
    own += m.nodes * m.filters[-1] * m.dim
    return max(1, round(own / (m.nodes * before + 1 + m.dim)))


# --- the system -------------------------------------------------------------------------------


@dataclass(frozen=True)
class GIN(VectorScored):
    """Hyper-parameters of GIN; sizes of 0 come from the data."""

    word_dim: int = option(300, at_least=1)
    """Size of the word vectors for relation S and for ``bilstm50``."""
    vocabulary_size: int = 0
    text_features: int = 0
    """Size of texts given as bags of words, one node per feature; 0: captions."""
    regions: int = 0
    """Number of regions; 0 with ``region_dim`` above 0: each image is one vector."""
    region_dim: int = 0
    # graph
    word_relations: str = "S"
    """Letters of S (similar), C (co-occurring) and K (knowledge); the union of their edges."""
    knn_k: int = option(8, at_least=1)
    together_least: int = option(2, at_least=1)
    together_information: float = 1.0
    cheb_k: int = option(3, at_least=1)
    """K, terms of the polynomial; 1 ignores the graph."""
    filters: tuple[int, ...] = (1, 1)
    graph: str = option("auto", choices=("auto", "dense", "sparse"))
    # texts
    text_model: str = option("gcn", choices=("gcn", "mlp_bow", "textcnn"))
    node_feature: str = option("tf", choices=("tf", "tfidf", "bilstm50"))
    word_dropout: float = 0.0
    vector_dropout: float = 0.0
    # images
    image_hidden: tuple[int, ...] = (2048,)
    region_scale: str = option("none", choices=SCALES)
    region_dropout: float = 0.0
    feature_dropout: float = 0.0
    # pairs
    metric: str = option("learned", choices=("learned", "cosine"))
    pair_dropout: float = 0.2
    match: str = option("group", choices=("group", "label"))
    """Pairs that match: pairs of a group (a picture and its texts), or pairs that share a label."""
    pair_mode: str = option("all_pairs", choices=("all_pairs", "sampled"))
    weight: float = option(0.35, at_least=0)
    """λ of the loss."""
    margin: float = 0.8
    l2: float = option(5e-3, at_least=0)
    """Weight of half the sum of squares of all weights."""

    def tower(self, modality: str) -> nn.Module:
        """The tower of a modality."""
        return ImagePath(self) if modality == "image" else TextPath(self)

    def tower_arguments(self, modality: str, tables: Tree, rows: Any) -> tuple[Any, ...]:
        """The word graph and the inverse frequencies, for texts."""
        return () if modality == "image" else (tables,)

    # --- encode and score ---------------------------------------------------------------------

    def to_codes(
        self, variables: Variables, modality: str, output: Any, *, train: bool, keys: Keys | None
    ) -> Float[Array, "B D"]:
        """The vector of every item, of unit length if the metric is the cosine."""
        return l2n(output) if self.metric == "cosine" else output

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """Score all pairs by w · (text ⊙ picture) + b, with w multiplied into one side."""
        if self.metric == "cosine":
            return super().score(variables, a, b)
        own = variables.params["metric"]
        return einsum("ad,bd->ab", a[1] * own["weight"][None, :], b[1]) + _stop_bias_gradient(
            own["bias"]
        )

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n E"]:
        """Vectors whose product is the score: weighted texts, and one more feature for b."""
        if self.metric == "cosine":
            return super().coarse(variables, modality, codes)
        own, x = variables.params["metric"], jnp.asarray(codes)
        last = jnp.ones((len(x), 1), jnp.float32)
        if modality == "image":
            return jnp.concatenate([x, last], axis=1)
        return jnp.concatenate([x * own["weight"][None, :], last * own["bias"]], axis=1)

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self,
        variables: Variables,
        codes: Mapping[str, Array],
        row: Items,
        *,
        step: Int[Array, ""],
        keys: Keys,
        axis: Axis,
    ) -> tuple[Float[Array, ""], Terms, Tree, Tree]:
        """The loss of means and variances, over all or over sampled pairs of the batch."""
        pairs = self._all_pairs if self.pair_mode == "all_pairs" else self._sampled
        scores, matching, counts = pairs(variables, codes, row, keys, axis)
        total, terms = mean_variance(
            scores, matching, counts, axis, weight=self.weight, margin=self.margin
        )
        if self.l2:
            terms["l2"] = 0.5 * _sum_of_squares(variables.params)
            total = total + self.l2 * terms["l2"]
        return total, terms, variables.stats, None

    def _all_pairs(
        self, variables: Variables, codes: Mapping[str, Array], row: Items, keys: Keys, axis: Axis
    ) -> tuple[Array, Array, Array]:
        """Scores of this device's texts with all pictures; dropout has one mask per text."""
        images, valid = axis.gather((codes["image"], row["valid"]))
        texts = codes["text"]
        if self.metric == "learned":
            texts = dropout(texts, self.pair_dropout, keys, "pairs")
        scores = self.score(variables, ("text", texts), ("image", images))
        return scores, self._matching(row, axis), row["valid"][:, None] & valid[None, :]

    def _matching(self, row: Items, axis: Axis) -> Array:
        """Mask of the pictures of all devices that match this device's texts, bool [B, all]."""
        same = row["group"][:, None] == axis.gather(row["group"])[None, :]
        if self.match == "group":
            return same
        own = row["labels"].astype(jnp.float32)
        return same | (einsum("bk,ak->ba", own, axis.gather(own)) > 0)  # some pairs have no label

    def _sampled(
        self, variables: Variables, codes: Mapping[str, Array], row: Items, keys: Keys, axis: Axis
    ) -> tuple[Array, Array, Array]:
        """One picture for every text, matching with probability 1/2, drawn within the batch.

        SCKR draws equal numbers of matching and other pairs before training.
        """
        images, valid = axis.gather((codes["image"], row["valid"]))
        drawn = uniform_numbers(keys.named("partners"), 2)
        matching = drawn[:, 0] < 0.5
        wanted = self._matching(row, axis) == matching[:, None]
        fits = wanted & row["valid"][:, None] & valid[None, :]
        rank, count = jnp.cumsum(fits, axis=1), jnp.sum(fits, axis=1)
        chosen = jnp.floor(drawn[:, 1] * count.astype(jnp.float32)).astype(rank.dtype) + 1
        chosen = jnp.minimum(chosen, count)
        partner = jnp.argmax(fits & (rank == chosen[:, None]), axis=1)
        both = codes["text"] * images[partner]
        if self.metric == "cosine":
            return jnp.sum(both, axis=1), matching, count > 0
        own = variables.params["metric"]
        both = dropout(both, self.pair_dropout, keys, "pairs")
        scores = einsum("bd,d->b", both, own["weight"]) + _stop_bias_gradient(own["bias"])
        return scores, matching, count > 0

    @property
    def needs_labels(self) -> bool:
        """Whether pairs match by shared labels."""
        return self.match == "label"

    # --- the word graph -----------------------------------------------------------------------

    @property
    def needs_tables(self) -> bool:
        """Whether there is a word graph or a table of inverse frequencies."""
        weighs = self.node_feature == "tfidf" and self.text_model != "textcnn"
        return self.uses_graph or weighs

    def tables_of(self, words: Corpus) -> Tree:
        """``graph`` of the relations or of a file, ``rarity`` of words for ``tfidf``."""
        found: dict[str, Any] = {}
        if self.uses_graph:
            given = words.given_graph()
            edges = self._relation_edges(words) if given is None else given
            found["graph"] = self._make_graph(edges)
        if self.node_feature == "tfidf":
            found["rarity"] = words.inverse_frequencies()
        return found

    def _relation_edges(self, words: Corpus) -> np.ndarray:
        found = []
        if "S" in self.word_relations:
            usable, k = words.usable(), min(self.knn_k, self.nodes - 1)
            near = np.asarray(graphs.nearest(words.vectors(self.word_dim), usable, k))
            edges = np.stack([np.repeat(np.arange(self.nodes), k), near.ravel()], axis=1)
            found.append(edges[edges[:, 1] >= 0])
        if "C" in self.word_relations:
            found.append(words.together(self.together_least, self.together_information))
        if "K" in self.word_relations:
            found.append(words.triples())
        return np.concatenate(found)

    def _make_graph(self, edges: np.ndarray) -> dict[str, np.ndarray]:
        dense = self.graph == "dense"
        if self.graph == "auto":
            share = 2 * len(edges) / max(self.nodes, 1) ** 2
            dense = self.nodes <= graphs.DENSE_BELOW or share >= DENSE_SHARE
        return graphs.make_graph(edges, self.nodes, dense)

    def _placeholder(self) -> Tree:
        """Tables without data: a ring of words with as many neighbours as relation S gives."""
        found: dict[str, Any] = {}
        if self.uses_graph:
            near = np.arange(1, max(self.knn_k // 2, 1) + 1)
            start = np.repeat(np.arange(self.nodes), len(near))
            end = (start + np.tile(near, self.nodes)) % max(self.nodes, 1)
            found["graph"] = self._make_graph(np.stack([start, end], axis=1))
        if self.node_feature == "tfidf":
            found["rarity"] = np.ones(self.nodes, np.float32)
        return found

    # --- hyper-parameters and plumbing --------------------------------------------------------

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = set(self.word_relations) - set(RELATIONS)
        if wrong or not self.word_relations:
            raise UserError(
                f"model.word_relations is {self.word_relations!r}: use the letters S (similar), C "
                "(co-occurring) and K (knowledge), at least one."
            )
        if not self.filters or min((*self.filters, *self.image_hidden)) < 1:
            raise UserError(
                f"model.filters {self.filters} and model.image_hidden {self.image_hidden} must be "
                "positive sizes of layers, with at least one of filters: change them."
            )
        if self.text_features and (self.text_model == "textcnn" or self.node_feature == "bilstm50"):
            raise UserError(
                "model.text_model textcnn and model.node_feature bilstm50 read words in order, and "
                "the data has bags of words: set model.text_model to gcn or mlp_bow, and "
                "model.node_feature to tf or tfidf."
            )

    @property
    def nodes(self) -> int:
        """The number of nodes of the word graph."""
        return self.text_features or self.vocabulary_size

    @property
    def uses_graph(self) -> bool:
        """Whether words exchange features with related words."""
        return self.text_model == "gcn" and self.cheb_k > 1

    def sizes(self, features: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Mapping[str, Any]:
        """Sizes of vectors if the data has them, else of regions and captions."""
        image, text = features["image"], features["text"]
        found = {"text_features": text["features"][0]} if "features" in text else {}
        if "features" in image:
            return {**found, "region_dim": image["features"][0]}
        return {**found, "regions": image["regions"][0], "region_dim": image["regions"][1]}

    def fit_to(self, plan: Plan) -> GIN:
        """Sizes from the data; with one vector per picture there are no regions."""
        fitted: GIN = super().fit_to(plan)
        return replace(fitted, regions=0) if "features" in plan.features["image"] else fitted

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Regions or a vector of features, and tokens or a bag."""
        found = regions_and_tokens(self.regions, self.region_dim)
        if not self.regions:
            found["image"] = {"features": Feature((self.region_dim,), "float32")}
        if self.text_features:
            found["text"] = {"features": Feature((self.text_features,), "float32")}
        return found

    def parts(self) -> Parts:
        """Both towers, the layers of the word graph, word vectors and the metric."""
        parts: dict[str, tuple[str, ...]] = {"image": ("image",), "text": ("text",)}
        if self.text_model == "gcn":
            parts["graph"] = tuple(f"text/graph{layer}" for layer in range(len(self.filters)))
        if self.text_model == "textcnn" or self.node_feature == "bilstm50":
            parts["words"] = ("text/words/vectors/vectors",)
        if self.metric == "learned":
            parts["metric"] = ("metric",)
        return parts

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; without tables, for a ring of words."""
        if tables is None and self.needs_tables:
            tables = jax.tree.map(jnp.asarray, self._placeholder())
        *k_towers, k_metric = jax.random.split(key, 3)
        params, _ = self.init_towers(k_towers, tables)
        if self.metric == "learned":
            start = nn.initializers.glorot_uniform()(k_metric, (self.dim, 1), jnp.float32)
            params["metric"] = {"weight": start[:, 0], "bias": jnp.zeros((), jnp.float32)}
        return Variables(params, None, None, tables)


def _stop_bias_gradient(bias: Float[Array, ""]) -> Float[Array, ""]:
    """The bias of the metric without a gradient.

    The loss depends only on differences of scores, so the gradient of the bias would be rounding
    error, which Adam would turn into steps.
    """
    return jax.lax.stop_gradient(bias)


def _sum_of_squares(params: Tree) -> Float[Array, ""]:
    """Sum of squares of all weights, without biases and word vectors."""
    named = jax.tree_util.tree_leaves_with_path(params)
    return sum(
        (jnp.sum(x**2) for path, x in named if path[-1].key.startswith(("kernel", "weight"))),
        jnp.zeros((), jnp.float32),
    )
