"""IMRAM: iterative matching with recurrent attention memory (Chen et al., CVPR 2020).

``scan`` is its preset of one step (SCAN, Lee et al., ECCV 2018). Fragments are unit vectors:
regions v_r = l2n(f_r W + b), words t_w = l2n of the mean of both directions of a GRU. A direction
lets the fragments of one item (queries X) attend to the other item's (context Y): words to
regions (t2i, text-IMRAM) or regions to words (i2t, image-IMRAM). Step k = 1..K, with x¹ = x:

    c_x^k   = Σ_y a_xy y                  attention of x^k to Y (layers/cross_attention.py)
    s_k     = mean_x cos(x, c_x^k)        the ORIGINAL fragment in every step
    g, o    = σ([x^k; c_x^k] W_g + b_g),  tanh([x^k; c_x^k] W_o + b_o)
    x^{k+1} = g ⊙ x^k + (1 - g) ⊙ o       the memory distillation unit, shared by all steps

    S(image, caption) = Σ_k s_k, summed over the directions of the variant

The update after step K is not computed. A linear map of [x; c] is split: the query's half is
computed once per query, and the context's half once per context element, because attending to
projected elements equals projecting the attended context. Both halves are part of an item's codes,
so only steps after the first need a matrix product per pair.
docs/models/imram.md has deviations, options and numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers.cross_attention import (
    RAW_NORMS,
    Attention,
    Contexts,
    Projected,
    Queries,
    attended_cosine,
    products,
)
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.linear import einsum, repeated, uniform
from hmgr_jax.layers.masking import l2n
from hmgr_jax.layers.matching import match_all_pairs, match_given_pairs
from hmgr_jax.layers.regions import RegionEmbedding, read_regions
from hmgr_jax.models.base import Codes, Explanation, Items, Parts, Variables
from hmgr_jax.models.options import option
from hmgr_jax.models.pair_scored import PairScored, explain_directions
from hmgr_jax.models.text_side import ReadsWords, word_states
from hmgr_jax.shapes import Array, Bool, Float, Tree

VARIANTS = {"full": ("t2i", "i2t"), "text": ("t2i",), "image": ("i2t",)}
"""Directions of a variant."""
DIRECTIONS = ("t2i", "i2t")
UNITS = ("gate_full", "add", "mlp", "att", "gate")
EMBEDDINGS = ("linear", "weight_norm")
"""``basic`` and ``weight_norm`` of the released code."""


class RegionTower(nn.Module):
    """Regions to unit fragments."""

    model: IMRAM

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None
    ) -> tuple[Float[Array, "B R D"], Bool[Array, "B R"]]:
        """Embed every region."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask = read_regions(items, m.region_scale, m.region_dropout, m.feature_dropout, keys)
        x = RegionEmbedding(m.dim, m.region_embedding, dtype=dtype, name="regions")(x)
        return l2n(x), mask


class WordTower(nn.Module):
    """Words to unit fragments."""

    model: IMRAM

    @nn.compact
    def __call__(
        self, items: Items, keys: Keys | None
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """Encode every word in its caption."""
        x, mask = word_states(self.model, items, keys)
        return l2n(x), mask


@dataclass(frozen=True)
class Unit:
    """The memory distillation unit of one direction.

    ``gate_full``: g ⊙ x + (1 - g) ⊙ o (the paper). ``add``: x + c. ``mlp``: o. ``att``: x and c
    weighted by a softmax of their products with one vector. ``gate``: g ⊙ x + (1 - g) ⊙ c.
    """

    features: int
    kind: str = "gate_full"
    normalise: bool = False
    """Scale queries to unit length after every update (``IMRAM_norm`` of the released code)."""
    dtype: Any = jnp.float32

    def _maps(self) -> tuple[str, ...]:
        return {"gate_full": ("gate", "out"), "mlp": ("out",), "gate": ("gate",)}.get(self.kind, ())

    def init(self, key: Array) -> Tree:
        """Parameters, U(±1/sqrt(2 D)) like the linear layers of PyTorch."""
        size = self.features
        draw = uniform((2 * size) ** -0.5)
        if self.kind == "att":
            return {"weight": {"kernel": draw(key, (size, 1))}}
        params = {}
        for name, k in zip(self._maps(), jax.random.split(key, 2), strict=False):
            k_kernel, k_bias = jax.random.split(k)
            params[name] = {
                "kernel": draw(k_kernel, (2 * size, size)),
                "bias": draw(k_bias, (size,)),
            }
        return params

    def project_query(self, params: Tree, x: Float[Array, "*batch D"]) -> Projected:
        """The query's half of every linear map; empty for ``add``."""
        if self.kind == "att":
            return (self._project(x, params["weight"]["kernel"]),)
        maps = [params[name] for name in self._maps()]
        return tuple(self._project(x, p["kernel"][: self.features], p["bias"]) for p in maps)

    def project_context(self, params: Tree, y: Float[Array, "*batch D"]) -> Projected:
        """The context's half of every linear map, and ``y`` itself if the unit adds it."""
        if self.kind == "att":
            return (self._project(y, params["weight"]["kernel"]), y)
        maps = [params[name] for name in self._maps()]
        halves = tuple(self._project(y, p["kernel"][self.features :]) for p in maps)
        return (*halves, y) if self.kind in ("add", "gate") else halves

    def update(
        self, x: Float[Array, "B Q D"], query: Projected, attended: Projected
    ) -> Float[Array, "B Q D"]:
        """The next query, from x, its `project_query` and the attended `project_context`."""
        x = self._update(x, query, attended)
        return l2n(x) if self.normalise else x

    def _update(self, x: Array, query: Projected, attended: Projected) -> Array:
        if self.kind == "gate_full":
            gate = jax.nn.sigmoid(query[0] + attended[0])
            out = jnp.tanh(query[1] + attended[1])
            return out + gate * (x - out)
        if self.kind == "mlp":
            return jnp.tanh(query[0] + attended[0])
        context = attended[-1]
        if self.kind == "add":
            return x + context
        # A softmax of two is a sigmoid of their difference.
        other = attended[0] if self.kind == "gate" else -attended[0]
        return context + jax.nn.sigmoid(query[0] + other) * (x - context)

    def _project(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        flat = x.reshape(-1, x.shape[-1])
        y = einsum("nd,dp->np", flat, kernel, dtype=self.dtype)
        if bias is not None:
            y = y + repeated(bias, y.shape[0])
        return y.reshape(*x.shape[:-1], kernel.shape[-1])


class IterativeMatcher(NamedTuple):
    """K steps of attention and memory in one direction, a `Matching`."""

    attention: Attention
    unit: Unit
    params: Tree
    """Parameters of the unit."""
    steps: int

    def __call__(
        self, contexts: Contexts, queries: Queries
    ) -> tuple[Float[Array, "K B Q"], Float[Array, "K B Y Q"]]:
        """Cosine of every original query with its attended context, and weights, at each step."""
        dtype = self.attention.dtype
        x, query = queries.nodes, queries.projected
        first = raw = products(contexts, x, dtype)
        if x.ndim == 2:
            x, query = jax.tree.map(lambda part: repeated(part, first.shape[0]), (x, query))
        cosines, weights = [], []
        for step in range(self.steps):
            if step:
                raw = products(contexts, x, dtype)
            weight = self.attention.weights(raw, contexts, queries)
            cosines.append(attended_cosine(weight, first, contexts.gram, dtype))
            weights.append(weight)
            if step + 1 == self.steps:
                break
            attended = tuple(
                einsum("byq,byc->bqc", weight, projected, dtype=dtype)
                for projected in contexts.projected
            )
            if step:
                query = self.unit.project_query(self.params, x)
            x = self.unit.update(x, query, attended)
        return jnp.stack(cosines), jnp.stack(weights)


@dataclass(frozen=True)
class IMRAM(PairScored, ReadsWords):
    """IMRAM with its hyper-parameters; sizes of 0 come from the data."""

    variant: str = option("full", choices=tuple(VARIANTS))
    steps: int = option(3, at_least=1)
    region_embedding: str = option("linear", choices=EMBEDDINGS)
    sharpness: float = option(9.0, at_least=0.0)
    raw_norm: str = option("clipped_l2norm", choices=RAW_NORMS)
    slope: float = option(0.1, at_least=0.0)
    unit: str = option("gate_full", choices=UNITS)
    memory_norm: bool = False
    score_step: int = option(0, at_least=0)
    """0: sum of the scores of all steps; k: score of step k only."""
    sum_warmup_steps: int = option(0, at_least=-1)

    # --- encode -------------------------------------------------------------------------------

    def tower(self, modality: str) -> nn.Module:
        """The encoder of a modality."""
        return RegionTower(self) if modality == "image" else WordTower(self)

    def to_codes(self, variables: Variables, modality: str, encoded: Any) -> Codes:
        """Unit fragments, and all terms of a pair score that are linear in one item.

        ``nodes`` [B, N, D] and ``mask`` [B, N]; as a query ``query``, each [B, N, P]; as a context
        ``gram`` [B, N, N] and ``context``, each [B, N, C].
        """
        nodes, mask = encoded
        codes = {"nodes": nodes, "mask": mask}
        unit = self._unit()
        for direction in VARIANTS[self.variant]:
            params = self._unit_params(variables, direction)
            if (direction == "t2i") == (modality == "image"):
                codes["gram"] = einsum("bnd,bmd->bnm", nodes, nodes, dtype=unit.dtype)
                if self.steps > 1:
                    codes["context"] = unit.project_context(params, nodes)
            elif self.steps > 1:
                codes["query"] = unit.project_query(params, nodes)
        return codes

    # --- score --------------------------------------------------------------------------------

    def step_scores(
        self, variables: Variables, images: Codes, texts: Codes
    ) -> Float[Array, "K I C"]:
        """Scores of every matching step, summed over directions."""
        return match_all_pairs(self._matchers(variables), images, texts)

    def score_matrix(
        self, variables: Variables, images: Codes, texts: Codes
    ) -> Float[Array, "I C"]:
        """S of all pairs."""
        return self._reduce_steps(self.step_scores(variables, images, texts))

    def score_pairs(self, variables: Variables, images: Codes, texts: Codes) -> Float[Array, " P"]:
        """S of each image with the caption of the same row."""
        return self._reduce_steps(match_given_pairs(self._matchers(variables), images, texts))

    def _reduce_steps(self, scores: Float[Array, "K *pairs"]) -> Float[Array, "*pairs"]:
        return scores[self.score_step - 1] if self.score_step else jnp.sum(scores, axis=0)

    def _matchers(self, variables: Variables) -> dict[str, IterativeMatcher]:
        unit = self._unit()
        attention = Attention(self.sharpness, self.raw_norm, self.slope, unit.dtype)
        return {
            direction: IterativeMatcher(
                attention, unit, self._unit_params(variables, direction), self.steps
            )
            for direction in VARIANTS[self.variant]
        }

    def explain(self, variables: Variables, image: Codes, text: Codes) -> Explanation:
        """Score of every step, and attention of the words or regions of one pair."""
        attention = explain_directions(self._matchers(variables), image, text)
        return Explanation(self.step_scores(variables, image, text)[:, 0, 0], attention)

    # --- units, parameters and checks ---------------------------------------------------------

    def _unit(self) -> Unit:
        return Unit(self.dim, self.unit, self.memory_norm, jnp.dtype(self.dtype))

    def _unit_params(self, variables: Variables, direction: str) -> Tree:
        return variables.params.get("units", {}).get(direction, {})

    def _directions_with_parameters(self) -> tuple[str, ...]:
        return VARIANTS[self.variant] if self.steps > 1 and self.unit != "add" else ()

    def init_pair(self, keys: list[Array]) -> Tree:
        """Parameters of the units of the variant."""
        directions = self._directions_with_parameters()
        if not directions:
            return {}
        named = zip(DIRECTIONS, keys, strict=True)
        return {"units": {name: self._unit().init(k) for name, k in named if name in directions}}

    def parts(self) -> Parts:
        """Encoders, the word vectors within the text encoder, and the units, if any."""
        units = {"units": ("units",)} if self._directions_with_parameters() else {}
        return {**super().parts(), **self.text_parts(), **units}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_step > self.steps:
            raise UserError(
                f"model.score_step is {self.score_step}, but model.steps is {self.steps}: "
                "lower model.score_step, or set it to 0 for the sum of all steps."
            )
