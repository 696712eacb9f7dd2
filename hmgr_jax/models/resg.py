"""ReSG: relationship-enhanced semantic graphs (IEEE Transactions on Cybernetics 54(2), 2024).

Only the paper's abstract was available; the equations below are ours and satisfy it. Regions
x_i = f_i W + b + s_i (s_i embeds the detected classes of the region) and words (states of a GRU)
are nodes of graphs whose edges have their own features. One graph layer:

    e_ij = ReLU(x_i W_s + x_j W_t + g_ij + b)     relation; g_ij from boxes, distances or a parser
    β_ij = softmax_j(e_ij·w + (x_i W_q)·(x_j W_k) / √E)
    x_i ← x_i + LN((Σ_j β_ij x_j W_m + Σ_j β_ij e_ij W_r) W_o)

The nodes of an item are V = l2n(x), and the last state of a GRU over its nodes is its vector z:

    s_t2i, s_i2t = mean cosine of words (regions) with their attended regions (words), as in SCAN
    S = s_t2i + s_i2t + μ <z_image, z_text>,   S̄ = S / (2 + μ)
    L = L_triplet(S) + λ_c L_center(z) + λ_pn L_threshold(S̄)

VReG and TReG of the abstract are the graphs of regions and of words. docs/models/resg.md has
deviations, options and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers.cross_attention import (
    Attention,
    Contexts,
    CosineMatcher,
    Matching,
    Queries,
    products,
)
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.graph import box_geometry, full_support, window_support
from hmgr_jax.layers.grouped_cosines import apply_head, group_cosines, group_lengths, init_head
from hmgr_jax.layers.linear import Linear, einsum, repeated, update_norm
from hmgr_jax.layers.masking import l2n, masked_softmax
from hmgr_jax.layers.matching import match_all_pairs, match_given_pairs
from hmgr_jax.layers.pooling import GlobalPool
from hmgr_jax.losses.centers import center_hinge
from hmgr_jax.losses.thresholds import calibrated, calibration, spread, threshold_hinge
from hmgr_jax.models.base import (
    Axis,
    Codes,
    Explanation,
    Feature,
    Items,
    Parts,
    Plan,
    Terms,
    Variables,
)
from hmgr_jax.models.options import option
from hmgr_jax.models.pair_scored import (
    ReadsDetections,
    embed_regions,
    encode_words,
    explain_directions,
)
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

DIRECTIONS = ("t2i", "i2t")
WINDOW = 3
"""Window: words at most this far apart are neighbours if captions have no word graphs."""
FARTHEST = 8
"""Signed distances between words are clipped to this; each distance is one kind of edge."""
KINDS = 64
"""Rows of the table of edge kinds."""
SELF, APART, FIRST_ARC = 0, 1, 2
"""Kinds of self loops and of words without an arc; two kinds per relation follow."""
RELATIONS = (KINDS - FIRST_ARC) // 2
"""Number of dependency relations in the table."""


class Encoded(NamedTuple):
    """The output of a tower."""

    x: Float[Array, "B N D"]
    """Nodes before their norm."""
    mask: Bool[Array, "B N"]
    vector: Float[Array, "B D"] | None
    """Unit vector of an item; None without a read-out."""
    weights: tuple[Float[Array, "B N N"], ...]
    """Edge weights β of every graph layer."""


class RegionTower(nn.Module):
    """VReG: edges of regions depend on the features of both and on the geometry of their boxes."""

    model: ReSG

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Encoded:
        """Embed regions, apply the graph layers, and read the nodes out in order."""
        m = self.model
        x, mask = embed_regions(m, items, keys)
        weights: list[Array] = []
        if m.visual_graph:
            geometry = jnp.zeros((*mask.shape, mask.shape[1], 6), jnp.float32)
            if m.boxes and "boxes" in items:
                geometry = box_geometry(items["boxes"])
            for layer in range(m.graph_layers):
                graph = _graph(m, layer, m.neighbours)
                x, weight = graph(x, full_support(mask), numbers=geometry)
                weights.append(weight)
        return Encoded(x, mask, _read_out(m, x, mask, keys), tuple(weights))


class WordTower(nn.Module):
    """TReG: edges of words depend on the dependency relation of the words, or their distance."""

    model: ReSG

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Encoded:
        """Encode words, apply the graph layers, and read the nodes out in order."""
        m = self.model
        x, mask = encode_words(m, items, keys)
        weights: list[Array] = []
        if m.text_graph and m.graph_layers:
            support, kinds = _word_graph(m, items, mask)
            for layer in range(m.graph_layers):
                x, weight = _graph(m, layer)(x, support, kinds=kinds)
                weights.append(weight)
        return Encoded(x, mask, _read_out(m, x, mask, keys), tuple(weights))


def _graph(m: ReSG, layer: int, neighbours: int = 0) -> SemanticGraph:
    width = m.edge_dim or max(1, m.dim // 4)
    return SemanticGraph(m.dim, width, neighbours, jnp.dtype(m.dtype), name=f"graph{layer}")


def _word_graph(
    m: ReSG, items: Items, mask: Bool[Array, "B L"]
) -> tuple[Bool[Array, "B L L"], Int[Array, "B L L"]]:
    """Edges between words, and their kinds."""
    if m.text_support == "dependency":
        support = dependency_support(items["heads"], mask)
    elif m.text_support == "window":
        support = window_support(mask, WINDOW)
    else:
        support = full_support(mask)
    if m.text_edges == "dependency":
        return support, dependency_kinds(items["heads"], items["relations"])
    return support, jnp.broadcast_to(distance_kinds(mask.shape[1])[None], support.shape)


def _read_out(m: ReSG, x: Array, mask: Array, keys: Keys | None) -> Float[Array, "B D"] | None:
    if m.readout == "none":
        return None
    pool = GlobalPool(m.readout, dtype=jnp.dtype(m.dtype), name="readout")
    return pool(x, mask, keys)


class SemanticGraph(nn.Module):
    """One graph layer with edges of ``edge_features`` (E). A new layer is the identity."""

    features: int
    edge_features: int
    neighbours: int = 0
    """Number of strongest neighbours that each node attends to; 0: all."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        support: Bool[Array, "B N N"],
        numbers: Float[Array, "B N N G"] | None = None,
        kinds: Int[Array, "B N N"] | None = None,
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B N N"]]:
        """New nodes and edge weights; the layer adds a constant to a node without edges.

        Args:
            x: nodes.
            support: existing edges, from j to i at [i, j].
            numbers: description of each edge, of which g_ij is a linear map; or
            kinds: kind of each edge below `KINDS`, of which g_ij is a row of a table.
        """

        def project(name: str, features: int, bias: bool = False) -> Array:
            return Linear(features, bias, self.dtype, name=name)(x)

        size = self.edge_features
        logits = einsum("bih,bjh->bij", project("query", size), project("key", size)) / size**0.5
        edges = project("source", size)[:, :, None, :] + project("target", size)[:, None, :, :]
        edges = jax.nn.relu(edges + self._describe(numbers, kinds))
        weight = self.param("weight", nn.initializers.xavier_uniform(), (size, 1), jnp.float32)
        logits = logits + einsum("bijh,ho->bijo", edges, weight)[..., 0]
        if 0 < self.neighbours < x.shape[1]:
            least = jax.lax.top_k(jnp.where(support, logits, -jnp.inf), self.neighbours)[0]
            support = support & (logits >= least[..., -1:])
        weights = masked_softmax(logits, support)
        message = einsum(
            "bij,bjd->bid", weights, project("message", self.features, True), dtype=self.dtype
        )
        gathered = einsum("bij,bijh->bih", weights, edges)
        message = message + Linear(self.features, False, self.dtype, name="relation")(gathered)
        update = Linear(self.features, dtype=self.dtype, name="out")(message)
        return x + update_norm(0.0)(update), weights

    def _describe(
        self, numbers: Float[Array, "B N N G"] | None, kinds: Int[Array, "B N N"] | None
    ) -> Float[Array, "B N N E"]:
        if numbers is not None:
            return Linear(self.edge_features, dtype=self.dtype, name="geometry")(numbers)
        if kinds is None:
            raise ValueError("SemanticGraph needs numbers or kinds of its edges")
        shape = (KINDS, self.edge_features)
        table = self.param("kinds", nn.initializers.normal(0.02), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape[1:], jnp.float32)
        # A product: the gradient of a look-up would be a sum row by row.
        rows = jax.nn.one_hot(kinds.reshape(-1), KINDS, dtype=jnp.float32)
        described = einsum("nk,kh->nh", rows, table + bias[None, :], dtype=self.dtype)
        return described.reshape(*kinds.shape, shape[1])


def distance_kinds(size: int) -> Int[Array, "L L"]:
    """The signed distance j - i, clipped to ±`FARTHEST`, as 0 to 16."""
    position = jnp.arange(size)
    return jnp.clip(position[None, :] - position[:, None], -FARTHEST, FARTHEST) + FARTHEST


def _arcs(heads: Int[Array, "B L"]) -> Bool[Array, "B L L"]:
    """True where j is the head of i and not i itself."""
    position = jnp.arange(heads.shape[1])
    arcs = heads[:, :, None] == position[None, None, :]
    return arcs & (position[:, None] != position[None, :])[None]


def dependency_support(heads: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Bool[Array, "B L L"]:
    """Edges between each word and its head in both directions, and self loops.

    Args:
        heads: position of each word's head; its own position if it has none.
        mask: valid words.
    """
    arcs = _arcs(heads)
    loops = jnp.eye(heads.shape[1], dtype=bool)[None]
    return (arcs | jnp.swapaxes(arcs, 1, 2) | loops) & mask[:, :, None] & mask[:, None, :]


def dependency_kinds(heads: Int[Array, "B L"], relations: Int[Array, "B L"]) -> Int[Array, "B L L"]:
    """Kinds of all pairs: self loop, no arc, and each relation to and from the head.

    Args:
        heads: as for `dependency_support`.
        relations: the relation of each word to its head, below `RELATIONS`.
    """
    up = _arcs(heads)
    down = jnp.swapaxes(up, 1, 2)
    kind = FIRST_ARC + 2 * jnp.clip(relations, 0, RELATIONS - 1)
    kinds = jnp.where(up, kind[:, :, None], jnp.where(down, kind[:, None, :] + 1, APART))
    return jnp.where(jnp.eye(heads.shape[1], dtype=bool)[None], SELF, kinds)


class GroupMatcher(NamedTuple):
    """A `Matching` of one step by grouped cosines of query and attended context (GSMN)."""

    attention: Attention
    head: Tree
    groups: int
    steps: int = 1

    def __call__(
        self, contexts: Contexts, queries: Queries
    ) -> tuple[Float[Array, "1 B Q"], Float[Array, "1 B Y Q"]]:
        """Similarity of every query, and attention weights."""
        dtype, x = self.attention.dtype, queries.nodes
        if x.ndim == 2:
            x = repeated(x, contexts.nodes.shape[0])
        weight = self.attention.weights(products(contexts, x, dtype), contexts, queries)
        attended = einsum("byq,byd->bqd", weight, contexts.nodes, dtype=dtype)
        cosines = group_cosines(x, group_lengths(x, self.groups), attended[:, None])[:, 0]
        return apply_head(self.head, cosines)[None], weight[None]


@dataclass(frozen=True)
class ReSG(ReadsDetections):
    """ReSG with its hyper-parameters; sizes of 0 come from the data."""

    visual_graph: bool = True
    text_graph: bool = True
    graph_layers: int = option(2, at_least=0)
    edge_dim: int = option(0, at_least=0)
    """Width E of edge features; 0: a quarter of ``dim``."""
    neighbours: int = option(0, at_least=0)
    """Number of strongest neighbours of each region; 0: all."""
    text_support: str = option("auto", choices=("auto", "dependency", "window", "full"))
    """``auto``: dependency if the data has word graphs, else a window."""
    text_edges: str = option("auto", choices=("auto", "dependency", "distance"))
    """``auto``: dependency if the data has word graphs, else the signed distance."""
    readout: str = option("gru", choices=("gru", "none"))
    sharpness: float = option(9.0, at_least=0.0)
    match: str = option("cosine", choices=("cosine", "groups"))
    groups: int = option(16, at_least=1)
    global_weight: float = option(1.0, at_least=0.0)
    """μ, the weight of the product of both vectors."""
    triplet_weight: float = option(1.0, at_least=0.0)
    center_weight: float = option(0.1, at_least=0.0)
    threshold_weight: float = option(0.5, at_least=0.0)
    positive_threshold: float = 0.7
    negative_threshold: float = 0.5
    calibration_step: int = option(0, at_least=-1)
    """The step after which the thresholds are set once, from its batch; -1: the last one of the
    first epoch; 0: none."""

    # --- encode -------------------------------------------------------------------------------

    def tower(self, modality: str) -> nn.Module:
        """The encoder of a modality."""
        return RegionTower(self) if modality == "image" else WordTower(self)

    def to_codes(self, variables: Variables, modality: str, encoded: Any) -> Codes:
        """``nodes`` [B, N, D] of unit length, ``mask``, ``gram`` [B, N, N], ``vector`` [B, D]."""
        nodes = l2n(encoded.x)
        gram = einsum("bnd,bmd->bnm", nodes, nodes, dtype=jnp.dtype(self.dtype))
        codes = {"nodes": nodes, "mask": encoded.mask, "gram": gram}
        return codes | ({} if encoded.vector is None else {"vector": encoded.vector})

    # --- score --------------------------------------------------------------------------------

    def score_matrix(
        self, variables: Variables, images: Codes, texts: Codes
    ) -> Float[Array, "I C"]:
        """S of all pairs."""
        scores = match_all_pairs(self._matchers(variables), images, texts)[0]
        if self.readout == "none":
            return scores
        return scores + self.global_weight * einsum("id,cd->ic", images["vector"], texts["vector"])

    def score_pairs(self, variables: Variables, images: Codes, texts: Codes) -> Float[Array, " P"]:
        """S of each image with the caption of the same row."""
        scores = match_given_pairs(self._matchers(variables), images, texts)[0]
        if self.readout == "none":
            return scores
        return scores + self.global_weight * jnp.sum(images["vector"] * texts["vector"], axis=1)

    def _matchers(self, variables: Variables) -> dict[str, Matching]:
        attention = Attention(self.sharpness, dtype=jnp.dtype(self.dtype))
        if self.match == "cosine":
            return dict.fromkeys(DIRECTIONS, CosineMatcher(attention))
        heads = variables.params["heads"]
        return {name: GroupMatcher(attention, heads[name], self.groups) for name in DIRECTIONS}

    def explain(self, variables: Variables, image: Codes, text: Codes) -> Explanation:
        """Attention of the words and of the regions of one pair."""
        attention = explain_directions(self._matchers(variables), image, text)
        return Explanation(self.score_pairs(variables, image, text), attention)

    def relations(
        self, variables: Variables, modality: str, items: Items
    ) -> Float[Array, "B K N N"] | None:
        """Edge weights β within each item, in every graph layer."""
        weights = self.apply_tower(variables, modality, items, None).weights
        return jnp.stack(weights, axis=1) if weights else None

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n E"]:
        """The mean node, and the vector of the item, if any, for a shortlist."""
        mean = super().coarse(variables, modality, codes)
        if self.readout == "none":
            return mean
        shares = (2.0**0.5 * mean, self.global_weight**0.5 * jnp.asarray(codes["vector"]))
        return jnp.concatenate(shares, axis=1)

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self,
        variables: Variables,
        codes: Mapping[str, Codes],
        row: Items,
        *,
        step: Int[Array, ""],
        keys: Keys,
        axis: Axis,
    ) -> tuple[Float[Array, ""], Terms, Tree, Tree]:
        """Triplet loss, thresholds on S̄ and center hinge; terms are logged without weights."""
        valid, group = axis.gather((row["valid"], row["group"]))
        ranking, hardest = self.rank(variables, codes, valid, group, step, axis)
        similarity = hardest.scaled(1.0 / self._highest_score())
        quartiles, stats = spread(similarity, valid), variables.stats
        terms = {self.objective: ranking, "hardest": hardest.triplet(self.margin)}
        total = self.triplet_weight * ranking
        if self.threshold_weight:
            above, below = self.positive_threshold, self.negative_threshold
            if stats is not None:
                above, below = stats["thresholds"]["above"], stats["thresholds"]["below"]
                due = step + 1 >= self.calibration_step
                fixed = jax.lax.stop_gradient(quartiles)
                stats = {"thresholds": calibrated(stats["thresholds"], fixed, due)}
                terms |= {f"threshold/{n}": stats["thresholds"][n] for n in ("above", "below")}
            terms["thresholds"] = threshold_hinge(similarity, valid, above=above, below=below)
            total = total + self.threshold_weight * terms["thresholds"]
        if self.center_weight:
            vectors = codes["image"]["vector"], codes["text"]["vector"]
            terms["centers"] = center_hinge(*vectors, row["valid"], row["group"], axis)
            total = total + self.center_weight * terms["centers"]
        return total, terms | quartiles, stats, None

    @property
    def summed(self) -> frozenset[str]:
        """Hinges are sums, and so is a loss that holds them."""
        sums = {"thresholds": self.threshold_weight, "centers": self.center_weight}
        also = {name for name, weight in sums.items() if weight}
        return super().summed | also | ({"loss"} if also else set())

    def _highest_score(self) -> float:
        """S of a perfect pair: S̄ is S divided by it."""
        return 2.0 + (self.global_weight if self.readout != "none" else 0.0)

    def first_epoch_message(self, report: Mapping[str, float]) -> str | None:
        """Message after the first epoch: the quartiles of S̄, and fitting thresholds."""
        if not self.threshold_weight:
            return None
        above = report.get("threshold/above", self.positive_threshold)
        return calibration(report, above, report.get("threshold/below", self.negative_threshold))

    # --- sizes, inputs, parameters and checks -------------------------------------------------

    def decide(self, plan: Plan) -> dict[str, Any]:
        """Sizes, and word graphs if the data has them."""
        parsed = "heads" in plan.features["text"]
        auto = {
            "text_support": "dependency" if parsed else "window",
            "text_edges": "dependency" if parsed else "distance",
        }
        chosen: dict[str, Any] = {n: x for n, x in auto.items() if getattr(self, n) == "auto"}
        if self.calibration_step < 0:
            chosen["calibration_step"] = plan.steps_per_epoch
        return super().decide(plan) | chosen

    def inputs(self) -> dict[str, dict[str, Feature]]:
        """Regions, tokens, arcs between words; boxes and class ids if the data has them."""
        features = super().inputs()
        if self.boxes and self.visual_graph and self.graph_layers:
            features["image"]["boxes"] = Feature((self.regions, 4), "float32", optional=True)
        if self.text_graph and self.graph_layers:
            sources = (self.text_support, self.text_edges)
            needed = "dependency" in sources
            if needed or "auto" in sources:  # before the data is known
                features["text"]["heads"] = Feature((None,), "int32", optional=not needed)
            if self.text_edges != "distance":
                optional = self.text_edges == "auto"
                features["text"]["relations"] = Feature((None,), "int32", optional=optional)
        return features

    def init_pair(self, keys: list[Array]) -> Tree:
        """Parameters of the heads over grouped cosines, if any."""
        if self.match == "cosine":
            return {}
        named = zip(DIRECTIONS, keys, strict=True)
        return {"heads": {name: init_head(k, self.groups) for name, k in named}}

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; the statistics are the thresholds, if they are calibrated."""
        variables = super().init(key, tables)
        if not self.calibration_step or not self.threshold_weight:
            return variables
        start = {"above": self.positive_threshold, "below": self.negative_threshold}
        thresholds = {name: jnp.float32(value) for name, value in start.items()}
        stats = {"thresholds": {**thresholds, "fitted": jnp.zeros((), bool)}}
        return replace(variables, stats=stats)

    def parts(self) -> Parts:
        """Encoders, word and class vectors, graphs and read-outs within them, and the heads."""
        parts = dict(super().parts())
        towers = (("image", self.visual_graph), ("text", self.text_graph))
        layers = range(self.graph_layers)
        graphs = tuple(f"{m}/graph{layer}" for m, on in towers if on for layer in layers)
        if graphs:
            parts["graphs"] = graphs
        if self.readout != "none":
            parts["readout"] = ("image/readout", "text/readout")
        return parts | ({"heads": ("heads",)} if self.match == "groups" else {})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match == "groups" and self.dim % self.groups:
            raise UserError(
                f"model.groups is {self.groups}, which does not divide model.dim, {self.dim}: "
                "choose a divisor."
            )
        if self.readout == "none" and self.center_weight:
            raise UserError(
                "model.readout is none, so the center loss has no vectors, but "
                f"model.center_weight is {self.center_weight}: set it to 0."
            )
        if self.threshold_weight and self.negative_threshold > self.positive_threshold:
            raise UserError(
                f"model.negative_threshold is {self.negative_threshold}, above "
                f"model.positive_threshold, {self.positive_threshold}: lower it."
            )
