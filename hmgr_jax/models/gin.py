"""GIN (PCM 2018) and SCKR (KSEM 2019): texts over a graph of words, matched with pictures.

All texts share one graph, whose nodes are the words of the vocabulary. A text is what its words put
on the nodes; Chebyshev convolutions spread that to related words, and a linear layer over all nodes
makes a vector of it. A picture takes a small MLP. The score of a pair is w · (text ⊙ picture) + b,
and the loss asks that scores of matching and of other pairs lie close together each and far from
one another. GIN relates words of similar vectors (S); SCKR adds words that stand together (C) and
those that a knowledge base joins (K).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.layers import vocabulary_graph as graphs
from hmgr_jax.layers.dropout import Keys, dropout, uniform_numbers
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import l2n
from hmgr_jax.layers.regions import SCALES
from hmgr_jax.losses.moments import mean_variance
from hmgr_jax.models.base import (
    Axis,
    Codes,
    Feature,
    Items,
    Model,
    Parts,
    Plan,
    Terms,
    Variables,
    example,
    regions_and_tokens,
)
from hmgr_jax.models.corpus import Corpus
from hmgr_jax.models.gin_towers import BAG_NORMS, STATES, ImagePath, TextPath
from hmgr_jax.models.ranges import check_ranges
from hmgr_jax.shapes import Array, Float, Int, Tree

RELATIONS = "SCK"
CHOICES = {
    "graph": ("auto", "dense", "sparse"),
    "node_feature": ("tf", "tfidf", "bilstm50"),
    "bag_norm": BAG_NORMS,
    "text_model": ("gcn", "mlp_bow", "textcnn"),
    "metric": ("learned", "cosine"),
    "match": ("group", "label"),
    "pair_mode": ("all_pairs", "sampled"),
    "region_scale": SCALES,
}
_COUNTS = ("dim", "word_dim", "knn_k", "cheb_k", "together_least", "cnn_filters")
AT_LEAST = dict.fromkeys(_COUNTS, 1) | {"weight": 0, "l2": 0, "bow_hidden": 0, "dense_share": 0}


@dataclass(frozen=True)
class GIN(Model):
    """Hyper-parameters of GIN; sizes of 0 come from the data."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    coarse_exact: ClassVar[bool] = True

    dim: int = 1024
    word_dim: int = 300
    """Of the vectors by which words are similar, and of those that ``bilstm50`` reads."""
    vocabulary_size: int = 0
    text_features: int = 0
    """Of texts that come as vectors, one node a feature; 0: of captions."""
    regions: int = 0
    """Of images; 0 and ``region_dim`` above 0: they come as one vector each."""
    region_dim: int = 0
    dtype: str = "float32"
    # graph
    word_relations: str = "S"
    """Letters of S (similar), C (together in texts) and K (knowledge), whose edges are united."""
    knn_k: int = 8
    together_least: int = 2
    together_information: float = 1.0
    cheb_k: int = 3
    """Terms of the polynomial; 1 is no graph."""
    filters: tuple[int, ...] = (1, 1)
    graph: str = "auto"
    dense_share: float = 0.005
    """Edges over squared nodes from which on ``auto`` is dense; below 4,000 words it always is."""
    # texts
    text_model: str = "gcn"
    node_feature: str = "tf"
    bag_norm: str = "l2"
    bow_hidden: int = 0
    """Of ``mlp_bow``; 0: as many as give it the size of the graph's path."""
    cnn_filters: int = 100
    word_dropout: float = 0.0
    vector_dropout: float = 0.0
    # images
    image_hidden: tuple[int, ...] = (2048,)
    region_scale: str = "none"
    region_dropout: float = 0.0
    feature_dropout: float = 0.0
    # pairs
    metric: str = "learned"
    pair_dropout: float = 0.2
    match: str = "group"
    """Which pairs match: those of a group (a picture and its texts), or all that share a label."""
    pair_mode: str = "all_pairs"
    weight: float = 0.35
    """λ of the loss."""
    margin: float = 0.8
    l2: float = 5e-3

    def __post_init__(self) -> None:
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST)
        wrong = set(self.word_relations) - set(RELATIONS)
        if wrong or not self.word_relations:
            raise UserError(
                f"model.word_relations is {self.word_relations!r}: give some of the letters S "
                "(similar), C (together in texts) and K (knowledge)."
            )
        if not self.filters or min((*self.filters, *self.image_hidden)) < 1:
            raise UserError(
                f"model.filters {self.filters} and model.image_hidden {self.image_hidden} are "
                "sizes of layers: give positive ones, and at least one of filters."
            )
        if self.text_features and (self.text_model == "textcnn" or self.node_feature == "bilstm50"):
            raise UserError(
                "model.text_model textcnn and model.node_feature bilstm50 read words in order, but "
                "the data has bags: set model.text_model to gcn or mlp_bow, and model.node_feature "
                "to tf or tfidf."
            )

    # --- sizes --------------------------------------------------------------------------------

    @property
    def nodes(self) -> int:
        """Of the word graph."""
        return self.text_features or self.vocabulary_size

    @property
    def uses_graph(self) -> bool:
        """Whether words hear of related ones."""
        return self.text_model == "gcn" and self.cheb_k > 1

    @property
    def reads_words(self) -> bool:
        """Whether there are trained word vectors."""
        if self.text_model == "textcnn":
            return True
        return self.node_feature == "bilstm50"

    def equal_hidden(self) -> int:
        """The width of ``mlp_bow`` at which it has the parameters of the graph's path."""
        before = STATES if self.node_feature == "bilstm50" else 1
        sizes = list(zip((before, *self.filters), self.filters, strict=False))
        own = sum(self.cheb_k * a * b + self.nodes * b for a, b in sizes)
        own += self.nodes * self.filters[-1] * self.dim
        return max(1, round(own / (self.nodes * before + 1 + self.dim)))

    def fit_to(self, plan: Plan) -> GIN:
        """Sizes from the data: vectors where it has them, else regions and captions."""
        image, text = plan.features["image"], plan.features["text"]
        fitted = replace(self, vocabulary_size=self.vocabulary_size or plan.vocabulary_size)
        if "features" in text:
            fitted = replace(fitted, text_features=self.text_features or text["features"][0])
        if "features" in image:
            size = image["features"][0]
            return replace(fitted, regions=0, region_dim=self.region_dim or size)
        regions, size = image["regions"]
        return replace(fitted, regions=self.regions or regions, region_dim=self.region_dim or size)

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Regions or a vector of features, and tokens or a bag."""
        found = regions_and_tokens(self.regions, self.region_dim)
        if not self.regions:
            found["image"] = {"features": Feature((self.region_dim,), "float32")}
        if self.text_features:
            found["text"] = {"features": Feature((self.text_features,), "float32")}
        return found

    def parts(self) -> Parts:
        """Both paths, the word graph's layers, word vectors and the metric, as far as there are."""
        parts: dict[str, tuple[str, ...]] = {"image": ("image",), "text": ("text",)}
        if self.text_model == "gcn":
            parts["graph"] = tuple(f"text/graph{layer}" for layer in range(len(self.filters)))
        if self.reads_words:
            parts["words"] = ("text/words/vectors/vectors",)
        if self.metric == "learned":
            parts["metric"] = ("metric",)
        return parts

    # --- tables -------------------------------------------------------------------------------

    @property
    def needs_tables(self) -> bool:
        """For the graph, or for how rare words are."""
        weighs = self.node_feature == "tfidf" and self.text_model != "textcnn"
        return self.uses_graph or weighs

    @property
    def needs_labels(self) -> bool:
        """To match by them."""
        return self.match == "label"

    def tables_of(self, words: Corpus) -> Tree:
        """``graph`` of the relations or of a file, ``rarity`` of words for ``tfidf``."""
        found: dict[str, Any] = {}
        if self.uses_graph:
            given = words.given_graph()
            edges = self._related(words) if given is None else given
            found["graph"] = self._graph_of(edges)
        if self.node_feature == "tfidf":
            found["rarity"] = words.inverse_frequencies()
        return found

    def _related(self, words: Corpus) -> np.ndarray:
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

    def _graph_of(self, edges: np.ndarray) -> dict[str, np.ndarray]:
        dense = self.graph == "dense"
        if self.graph == "auto":
            share = 2 * len(edges) / max(self.nodes, 1) ** 2
            dense = self.nodes <= graphs.DENSE_BELOW or share >= self.dense_share
        return graphs.make_graph(edges, self.nodes, dense)

    def _placeholder(self) -> Tree:
        """Tables of no data: a ring in which every word has as many neighbours as by S."""
        found: dict[str, Any] = {}
        if self.uses_graph:
            near = np.arange(1, max(self.knn_k // 2, 1) + 1)
            start = np.repeat(np.arange(self.nodes), len(near))
            end = (start + np.tile(near, self.nodes)) % max(self.nodes, 1)
            found["graph"] = self._graph_of(np.stack([start, end], axis=1))
        if self.node_feature == "tfidf":
            found["rarity"] = np.ones(self.nodes, np.float32)
        return found

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; without tables those of a ring of words."""
        if tables is None and self.needs_tables:
            tables = jax.tree.map(jnp.asarray, self._placeholder())
        k_image, k_text, k_metric = jax.random.split(key, 3)
        items = {m: example(features) for m, features in self.inputs().items()}
        params: dict[str, Any] = {
            "image": ImagePath(self).init(k_image, items["image"], None)["params"],
            "text": TextPath(self).init(k_text, items["text"], tables, None)["params"],
        }
        if self.metric == "learned":
            start = nn.initializers.glorot_uniform()(k_metric, (self.dim, 1), jnp.float32)
            params["metric"] = {"weight": start[:, 0], "bias": jnp.zeros((), jnp.float32)}
        return Variables(params, None, None, tables)

    # --- items and pairs ----------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Float[Array, "B D"], Tree]:
        """The vector of every item; of unit length where the metric is the cosine."""
        keys = keys.named(modality) if train and keys is not None else None
        given = {"params": variables.params[modality]}
        x: Any
        if modality == "image":
            x = ImagePath(self).apply(given, items, keys)
        else:
            x = TextPath(self).apply(given, items, variables.tables, keys)
        return (l2n(x) if self.metric == "cosine" else x), variables.stats

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """All pairs' w · (text ⊙ picture) + b, the weights multiplied into one side."""
        if self.metric == "cosine":
            return super().score(variables, a, b)
        own = variables.params["metric"]
        return einsum("ad,bd->ab", a[1] * own["weight"][None, :], b[1]) + _still(own["bias"])

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n E"]:
        """Vectors whose product is the score: texts weighted, and a feature more for b."""
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
        """The loss of means and variances, over all pairs of the batch or over drawn ones."""
        pairs = self._all_pairs if self.pair_mode == "all_pairs" else self._sampled
        scores, matching, counts = pairs(variables, codes, row, keys, axis)
        total, terms = mean_variance(
            scores, matching, counts, axis, weight=self.weight, margin=self.margin
        )
        if self.l2:
            terms["l2"] = 0.5 * _squares(variables.params)
            total = total + self.l2 * terms["l2"]
        return total, terms, variables.stats, None

    def _all_pairs(
        self, variables: Variables, codes: Mapping[str, Array], row: Items, keys: Keys, axis: Axis
    ) -> tuple[Array, Array, Array]:
        """This device's texts with all pictures; dropout is one mask a text."""
        images, valid = axis.gather((codes["image"], row["valid"]))
        texts = codes["text"]
        if self.metric == "learned":
            texts = dropout(texts, self.pair_dropout, keys, "pairs")
        scores = self.score(variables, ("text", texts), ("image", images))
        return scores, self._matching(row, axis), row["valid"][:, None] & valid[None, :]

    def _matching(self, row: Items, axis: Axis) -> Array:
        """Which of all pictures match this device's texts, bool [B, all]."""
        same = row["group"][:, None] == axis.gather(row["group"])[None, :]
        if self.match == "group":
            return same
        own = row["labels"].astype(jnp.float32)
        return same | (einsum("bk,ak->ba", own, axis.gather(own)) > 0)  # some pairs have no label

    def _sampled(
        self, variables: Variables, codes: Mapping[str, Array], row: Items, keys: Keys, axis: Axis
    ) -> tuple[Array, Array, Array]:
        """A picture for every text, a matching one or another, as a coin says (SCKR).

        SCKR draws as many matching pairs as others ahead of training; here they are drawn within
        the batch.
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
        scores = einsum("bd,d->b", both, own["weight"]) + _still(own["bias"])
        return scores, matching, count > 0


def _still(bias: Float[Array, ""]) -> Float[Array, ""]:
    """The bias of the metric, which the loss does not depend on: it asks for differences.

    Its gradient would be rounding alone, which Adam makes steps of.
    """
    return jax.lax.stop_gradient(bias)


def _squares(params: Tree) -> Float[Array, ""]:
    """The sum of squares of all weights of layers, without biases and word vectors."""
    named = jax.tree_util.tree_leaves_with_path(params)
    return sum(
        (jnp.sum(x**2) for path, x in named if path[-1].key.startswith(("kernel", "weight"))),
        jnp.zeros((), jnp.float32),
    )
