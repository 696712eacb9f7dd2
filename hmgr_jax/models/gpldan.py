"""GPLDAN: graph pattern loss based diversified attention network (Xu et al., ICIP 2020).

Unsupervised retrieval between image vectors v [E_v] and text vectors t [E_t]. Each modality has a
projector from its vector x to K views u^k, which attend to each other and are fused to z [D]:

    h = tanh(x W_h),  a^k = sigmoid(tanh(h W_1) W_2^k),  u^k = tanh((a^k ⊙ h) W_p)
    r = LN(u + softmax((u W_q)(u W_k)ᵀ / √D) (u W_v) W_o),  z = Σ_k softmax_k(r^k·w) r^k

The graph pattern loss fits all distances among the nodes (views and z) of a batch to those of the
input features (`hmgr_jax.losses.graph_pattern`); a classifier predicts the modality of a view, and
a diversity term separates the gates of an item:

    Loss = L_gp + λ_m L_mod + λ_d L_div (+ λ_r L_rec)

The score is the cosine of z, or the kNN marginal similarity (`Neighbourhood`). Only the paper's
abstract was available: docs/models/gpldan.md lists the parts that follow CDPAE (Xu et al., ACM MM
2018) and our design choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys, uniform_numbers
from hmgr_jax.layers.linear import Linear, einsum
from hmgr_jax.layers.masking import l2n
from hmgr_jax.losses import graph_pattern as pattern
from hmgr_jax.losses.triplet import constant_triplet, triplet_of_vectors
from hmgr_jax.models.base import Axis, Codes, Feature, Items, Parts, Terms, Variables
from hmgr_jax.models.options import option
from hmgr_jax.models.vector_scored import VectorScored
from hmgr_jax.shapes import Array, Float, Int, Tree

MASKED_SHARES = {"image": 0.5, "text": 0.7}
"""Shares of the features that ``input_mask`` zeroes (CDPAE)."""
MEASURED_ROWS = 4096
"""Items read at a time."""
SMALLEST_DEVIATION = 1e-6
"""A feature with a smaller relative deviation is constant; its deviation is set to 1."""


# --- projector --------------------------------------------------------------------------------


class Projector(nn.Module):
    """A vector to K views and their gates; ``linear`` is one view without gates."""

    views: int
    features: int
    gate_features: int
    kind: str = "attention"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B E"]) -> tuple[Array, Array]:
        """(views [B, K, D], gates [B, K, D])."""
        if self.kind == "linear":
            view = Linear(self.features, dtype=self.dtype, name="trunk")(x)[:, None]
            return view, jnp.ones_like(view)
        hidden = jnp.tanh(Linear(self.features, dtype=self.dtype, name="trunk")(x))
        looked = jnp.tanh(Linear(self.gate_features, dtype=self.dtype, name="look")(hidden))
        logits = Linear(self.views * self.features, dtype=self.dtype, name="gates")(looked)
        gates = jax.nn.sigmoid(logits.reshape(-1, self.views, self.features))
        project = Linear(self.features, dtype=self.dtype, name="project")
        return jnp.tanh(project(gates * hidden[:, None])), gates


class Interaction(nn.Module):
    """``LN(u + softmax(u W_q (c W_k)ᵀ / √D) c W_v W_o)``: views attend to views of a context.

    Both modalities share this layer. Without ``attend`` only the norm is applied.
    """

    attend: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, views: Float[Array, "B K D"], context: Float[Array, "B C D"]
    ) -> Float[Array, "B K D"]:
        """Views of each item after attention to its context, by default its own views."""
        size = views.shape[-1]
        if self.attend:

            def linear(name: str, x: Array) -> Array:
                return Linear(size, use_bias=False, dtype=self.dtype, name=name)(x)

            query, key, value = (
                linear("query", views),
                linear("key", context),
                linear("value", context),
            )
            logits = einsum("bkd,bcd->bkc", query, key, dtype=self.dtype) / jnp.sqrt(
                jnp.float32(size)
            )
            seen = einsum("bkc,bcd->bkd", jax.nn.softmax(logits), value, dtype=self.dtype)
            views = views + linear("out", seen)
        return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name="norm")(views)


class Fusion(nn.Module):
    """K views to one vector: by attention, by their mean, or by a linear map of all views."""

    kind: str = "attn"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, views: Float[Array, "B K D"]) -> Float[Array, "B D"]:
        """The fused vectors, of any length."""
        if self.kind == "mean":
            return jnp.mean(views, axis=1)
        if self.kind == "concat":
            flat = views.reshape(len(views), -1)
            return Linear(views.shape[-1], dtype=self.dtype, name="project")(flat)
        logits = Linear(1, use_bias=False, dtype=self.dtype, name="attend")(views)
        return jnp.sum(jax.nn.softmax(logits, axis=1) * views, axis=1)


class ModalityClassifier(nn.Module):
    """Logits [B, K, 2] of the modality of each view."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, views: Float[Array, "B K D"]) -> Float[Array, "B K 2"]:
        """Classify every view."""
        hidden = Linear(views.shape[-1] // 2, dtype=self.dtype, name="hidden")(views)
        return Linear(2, dtype=self.dtype, name="logits")(jax.nn.relu(hidden))


@jax.custom_vjp
def reversed_gradient(x: Array) -> Array:
    """``x`` with a gradient of the opposite sign (Ganin and Lempitsky, ICML 2015)."""
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, g: (jax.tree.map(jnp.negative, g),))


def diversity(gates: Float[Array, "B K D"]) -> Float[Array, " B"]:
    """Mean squared cosine between an item's gates after subtracting their mean."""
    views = gates.shape[1]
    if views < 2:
        return jnp.zeros(len(gates), jnp.float32)
    off = gates - jnp.mean(gates, axis=1, keepdims=True)
    length = jnp.sqrt(jnp.sum(off**2, axis=-1, keepdims=True) + 1e-12)
    cosines = einsum("bkd,bld->bkl", off / length, off / length)
    apart = 1.0 - jnp.eye(views, dtype=jnp.float32)[None]
    return jnp.sum(cosines**2 * apart, axis=(1, 2)) / (views * (views - 1))


# --- features and training vectors ------------------------------------------------------------


def _identity_moments(size: int) -> dict[str, Array]:
    """Moments that leave features unchanged."""
    return {"mean": jnp.zeros(size, jnp.float32), "deviation": jnp.ones(size, jnp.float32)}


def measure_moments(source: Any) -> dict[str, Array]:
    """Mean and deviation of the ``features`` [n, D] of all items of a source, in float64."""
    total = square = np.float64(0.0)
    for stop in range(0, len(source), MEASURED_ROWS):
        items = np.arange(stop, min(stop + MEASURED_ROWS, len(source)))
        x = np.asarray(source.gather(items)["features"], np.float64)
        total, square = total + x.sum(axis=0), square + (x**2).sum(axis=0)
    mean = total / len(source)
    deviation = np.sqrt(np.maximum(square / len(source) - mean**2, 0.0))
    deviation = np.where(
        deviation > SMALLEST_DEVIATION * np.maximum(1.0, np.abs(mean)), deviation, 1.0
    )
    return {"mean": jnp.float32(mean), "deviation": jnp.float32(deviation)}


def standardise(x: Float[Array, "b D"], moments: Mapping[str, Array]) -> Float[Array, "b D"]:
    """``(x - mean) / deviation``."""
    return (x - moments["mean"][None, :]) / moments["deviation"][None, :]


def _mask_columns(x: Float[Array, "b E"], share: float, keys: Keys) -> Float[Array, "b E"]:
    """Zero a share of the columns, the same in all rows of the batch and on all devices."""
    order = jnp.argsort(jax.random.uniform(keys.base, (x.shape[1],)))
    kept = order >= round(share * x.shape[1])
    return jnp.where(kept[None, :], x, 0.0)


@struct.dataclass
class Neighbourhood:
    """Training vectors for the kNN marginal similarity: N images and M texts of unit length."""

    images: Float[Array, "N D"]
    texts: Float[Array, "M D"]
    owner: Int[Array, " M"]
    """The image of every text."""
    missing: Float[Array, " M"]
    """1 - s of every text and its image, which H adds to s."""

    @classmethod
    def of(cls, images: Any, texts: Any, owner: Any) -> Neighbourhood:
        """From unit vectors [N, D] and [M, D], and the image [M] of every text."""
        images, texts, owner = map(jnp.asarray, (images, texts, owner))
        close = (1.0 + jnp.sum(images[owner] * texts, axis=1)) / 2.0
        return cls(images, texts, owner, 1.0 - close)

    def vectors(self, x: Float[Array, "n D"], count: int, *, first: bool) -> Float[Array, "n E"]:
        """Vectors of 1 + D + 2 N numbers whose inner product is the marginal similarity.

        With s = (1 + cosine) / 2, the rows of P are the k largest s to training vectors,
        normalised to sum 1, and Sim = P_v H P_tᵀ. H is s between training vectors and 1 between
        the members of a pair: low rank except for the pairs.

        Args:
            x: unit vectors.
            count: k, the number of neighbours.
            first: whether these are the first (image) side of the product.
        """
        everything = jnp.concatenate([self.images, self.texts])
        close = (1.0 + einsum("nd,md->nm", x, everything)) / 2.0
        near, places = jax.lax.top_k(close, count)
        near = near / jnp.maximum(jnp.sum(near, axis=1, keepdims=True), 1e-12)
        rows = jnp.arange(len(x))[:, None]
        weights = jnp.zeros_like(close).at[rows, places].set(near)
        mean = einsum("nm,md->nd", weights, everything)
        own, of_texts = jnp.split(weights, [len(self.images)], axis=1)
        folded = jnp.zeros_like(own).at[:, self.owner].add(of_texts * self.missing[None, :])
        half = jnp.sqrt(jnp.float32(0.5))
        ones = jnp.ones((len(x), 1), jnp.float32)
        sides = (own, folded) if first else (folded, own)
        return jnp.concatenate([half * ones, half * mean, *sides], axis=1)


# --- the system -------------------------------------------------------------------------------


@dataclass(frozen=True)
class GPLDAN(VectorScored):
    """Hyper-parameters of GPLDAN; sizes of 0 come from the data."""

    dim: int = option(1024, at_least=2)
    image_dim: int = 0
    text_dim: int = 0
    # views
    projector: str = option("attention", choices=("attention", "linear"))
    """``linear``: one view, a linear map."""
    views: int = option(4, at_least=1)
    gate_dim: int = option(256, at_least=1)
    interaction: str = option("intra", choices=("intra", "none", "batch_cross"))
    """``batch_cross``: in training a view also attends to the views of the paired item."""
    fusion: str = option("attn", choices=("attn", "mean", "concat"))
    input_mask: bool = False
    """In training zero a share of the features, the same columns for all items of a batch."""
    # loss
    objective: str = option("graph_pattern", choices=("graph_pattern", "triplet"))
    """``triplet``: a hinge on the fused vectors, which is not in the paper."""
    edges: tuple[str, ...] = option(pattern.EDGES[:3], choices=pattern.EDGES)
    all_pairs: bool = True
    """False: one random partner for every item, as in CDPAE."""
    lambda_1: float = option(0.3, at_least=0)
    lambda_self: float = option(0.0, at_least=0)
    modality_cls: str = option("coop", choices=("coop", "grl", "off"))
    lambda_mod: float = option(0.1, at_least=0)
    lambda_div: float = option(0.1, at_least=0)
    lambda_rec: float = option(0.0, at_least=0)
    """Weight of the reconstruction of the features from the fused vector; 0: no decoder."""
    margin: float = option(0.2, at_least=0)
    """Margin of ``objective`` triplet."""
    # test
    similarity: str = option("cosine", choices=("cosine", "knn"))
    neighbours: int = option(100, at_least=1)
    """k of ``knn``."""

    @property
    def _width(self) -> Any:
        return jnp.dtype(self.dtype)

    def _shared_modules(self) -> dict[str, Any]:
        """The modules shared by both modalities."""
        found: dict[str, Any] = {}
        if self.projector == "attention":
            found["interaction"] = Interaction(self.interaction != "none", self._width)
            if self.fusion != "mean":
                found["fusion"] = Fusion(self.fusion, self._width)
        if self._uses_classifier:
            found["classifier"] = ModalityClassifier(self._width)
        return found

    def _modality_modules(self, modality: str) -> dict[str, Any]:
        """The modules of one modality."""
        kind = self.projector
        found: dict[str, Any] = {
            "projector": Projector(self.views, self.dim, self.gate_dim, kind, self._width)
        }
        if self.lambda_rec:
            size = self.image_dim if modality == "image" else self.text_dim
            found["decoder"] = Linear(size, dtype=self._width)
        return found

    @property
    def _uses_classifier(self) -> bool:
        return self.modality_cls != "off" and self.lambda_mod > 0

    # --- encode -------------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """Unit vectors [B, D] or vectors of the `Neighbourhood`; a dict in training."""
        if train:
            made = self._views(variables, modality, items, keys)
            return self._training_codes(variables, modality, made, made["views"]), variables.stats
        views = self._views(variables, modality, items, None)["views"]
        z = l2n(self._fuse(variables, self._interact(variables, views, views)))
        if self.similarity == "knn" and isinstance(variables.tables, Neighbourhood):
            first = modality == self.modalities[0]
            return variables.tables.vectors(z, self.neighbours, first=first), variables.stats
        return z, variables.stats

    def encode_batch(
        self,
        variables: Variables,
        items: Mapping[str, Items],
        row: Items,
        *,
        keys: Keys,
        axis: Axis,
    ) -> tuple[dict[str, Codes], Tree]:
        """Training codes; with ``batch_cross`` views also attend to the paired item."""
        made = {m: self._views(variables, m, items[m], keys) for m in self.modalities}
        contexts = {m: found["views"] for m, found in made.items()}
        if self.interaction == "batch_cross":
            together = jnp.concatenate(list(contexts.values()), axis=1)
            contexts = dict.fromkeys(contexts, together)
        codes = {
            m: self._training_codes(variables, m, made[m], contexts[m]) for m in self.modalities
        }
        return codes, variables.stats

    def _views(
        self, variables: Variables, modality: str, items: Items, keys: Keys | None
    ) -> dict[str, Array]:
        """The standardised features, and the views and gates of the projector."""
        x = items["features"].astype(jnp.float32)
        if variables.stats is not None and modality in variables.stats:
            x = standardise(x, variables.stats[modality])
        own = variables.params[modality]["projector"]
        read = x
        if self.input_mask and keys is not None:
            read = _mask_columns(x, MASKED_SHARES[modality], keys.named(f"{modality}/mask"))
        views, gates = self._modality_modules(modality)["projector"].apply({"params": own}, read)
        return {"inputs": x, "views": views, "gates": gates}

    def _interact(self, variables: Variables, views: Array, context: Array) -> Array:
        module = self._shared_modules().get("interaction")
        if module is None:
            return views
        return module.apply({"params": variables.params["interaction"]}, views, context)

    def _fuse(self, variables: Variables, views: Array) -> Array:
        module = self._shared_modules().get("fusion")
        if module is None:
            return jnp.mean(views, axis=1)
        return module.apply({"params": variables.params["fusion"]}, views)

    def _training_codes(
        self, variables: Variables, modality: str, made: dict[str, Array], context: Array
    ) -> dict[str, Array]:
        views = self._interact(variables, made["views"], context)
        fused = self._fuse(variables, views)
        codes = {**made, "views": views, "fused": fused}
        if self.lambda_rec:
            own = {"params": variables.params[modality]["decoder"]}
            codes["restored"] = self._modality_modules(modality)["decoder"].apply(own, fused)
        return codes

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
        """L_gp + λ_m L_mod + λ_d L_div + λ_r L_rec, or a hinge on the fused vectors."""
        if self.objective == "triplet":
            fused = {m: l2n(codes[m]["fused"]) for m in self.modalities}
            valid = row["valid"]
            total = triplet_of_vectors(
                fused["image"], fused["text"], valid, None, axis, margin=self.margin, hard=False
            )
            return total, {"triplet": total}, variables.stats, None
        terms = self._edge_terms(codes, row, keys, axis)
        weights = {"pair": 2.0, "het": 2.0 * self.lambda_1, "homo": 2.0 * self.lambda_1}
        weights["self"] = self.lambda_self
        rows = row["valid"].astype(jnp.float32)
        count = jnp.maximum(axis.sum(jnp.sum(rows)), 1.0)
        for name, weight, each in self._row_terms(variables, codes):
            terms[name] = axis.sum(jnp.sum(jnp.where(row["valid"], each, 0.0))) / count
            weights[name] = weight
        total = sum((weights[name] * value for name, value in terms.items()), jnp.float32(0.0))
        return total, terms, variables.stats, None

    @property
    def summed(self) -> frozenset[str]:
        """The terms of hinges, with ``objective`` triplet."""
        return frozenset(("loss", "triplet") if self.objective == "triplet" else ())

    def plateau(self, row: Items, step: Array, axis: Axis) -> Float[Array, ""] | None:
        """2 · margin · the number of negatives, under ``objective`` triplet."""
        if self.objective != "triplet":
            return None
        return constant_triplet(row["valid"], None, axis, margin=self.margin, hard=False)

    def _edge_terms(
        self, codes: Mapping[str, Codes], row: Items, keys: Keys, axis: Axis
    ) -> dict[str, Array]:
        """The mean of every family of edges."""
        sides = []
        for m in self.modalities:
            nodes = jnp.concatenate([codes[m]["views"], codes[m]["fused"][:, None]], axis=1)
            sides.append(pattern.Side(l2n(nodes), codes[m]["inputs"]))
        valid, index = axis.gather((row["valid"], row["index"]))
        if self.all_pairs:
            weights = pattern.all_others(row["index"], index, row["valid"], valid)
        else:
            draws = uniform_numbers(Keys(keys.named("partner").base, index), 1).reshape(-1)
            own = axis.index() * len(row["index"]) + jnp.arange(len(row["index"]))
            weights = pattern.one_partner(draws, valid, own)
        return pattern.graph_pattern(
            sides[0],
            sides[1],
            weights,
            row["valid"],
            axis,
            edges=tuple(self.edges),
        )

    def _row_terms(
        self, variables: Variables, codes: Mapping[str, Codes]
    ) -> list[tuple[str, float, Float[Array, " b"]]]:
        """(term, its weight, its value for each local row), summed over modalities."""
        sides = [codes[m] for m in self.modalities]
        found: list[tuple[str, float, Array]] = []
        if self._uses_classifier:
            each = [self._modality_loss(variables, s["views"], k) for k, s in enumerate(sides)]
            found.append(("modality", self.lambda_mod, each[0] + each[1]))
        if self.lambda_div and self.views > 1:
            each = [diversity(side["gates"]) for side in sides]
            found.append(("diversity", self.lambda_div, each[0] + each[1]))
        if self.lambda_rec:
            off = [jnp.sum((s["inputs"] - s["restored"]) ** 2, axis=1) for s in sides]
            each = [jnp.sqrt(x + 1e-12) for x in off]
            found.append(("reconstruction", self.lambda_rec, each[0] + each[1]))
        return found

    def _modality_loss(self, variables: Variables, views: Array, number: int) -> Float[Array, " b"]:
        """Cross entropy of the modality ``number``, mean over an item's views."""
        if self.modality_cls == "grl":
            views = reversed_gradient(views)
        given = {"params": variables.params["classifier"]}
        logits: Any = self._shared_modules()["classifier"].apply(given, views)
        return -jnp.mean(jax.nn.log_softmax(logits)[..., number], axis=1)

    # --- the table of training vectors --------------------------------------------------------

    @property
    def needs_train(self) -> bool:
        """Whether items are compared by their nearest training vectors."""
        return self.similarity == "knn"

    def finalize(
        self,
        variables: Variables,
        train_codes: Mapping[str, Codes],
        rows: Mapping[str, np.ndarray],
    ) -> Variables:
        """Store the training vectors as a table."""
        if not self.needs_train:
            return variables
        images, texts = (np.asarray(train_codes[m]) for m in self.modalities)
        if self.neighbours > len(images) + len(texts):
            raise UserError(
                f"model.neighbours is {self.neighbours}, and there are only "
                f"{len(images) + len(texts)} training items: lower it."
            )
        owner = np.zeros(len(texts), np.int32)
        owner[rows["text"]] = rows["image"]
        return replace(variables, tables=Neighbourhood.of(images, texts, owner))

    # --- hyper-parameters and plumbing --------------------------------------------------------

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.edges:
            raise UserError(
                f"model.edges is empty: name at least one of {', '.join(pattern.EDGES)}."
            )
        if self.projector == "linear" and self.views != 1:
            raise UserError(
                f"model.projector linear has one view, got model.views {self.views}: set it to 1."
            )

    def sizes(self, features: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Mapping[str, Any]:
        """The sizes of the vectors."""
        return {f"{m}_dim": features[m]["features"][0] for m in self.modalities}

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """One vector per item."""
        sizes = {"image": self.image_dim, "text": self.text_dim}
        return {m: {"features": Feature((size,), "float32")} for m, size in sizes.items()}

    def parts(self) -> Parts:
        """The projector of each modality, and the shared modules."""
        return {name: (name,) for name in (*self.modalities, *self._shared_modules())}

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; `observe` measures the moments of the features."""
        params: dict[str, Any] = {}
        views = jnp.ones((1, self.views, self.dim), jnp.float32)
        keys = iter(jax.random.split(key, 8))
        for m in self.modalities:
            example = jnp.ones((1, self.inputs()[m]["features"].shape[0] or 1), jnp.float32)
            given = {"projector": example, "decoder": views[:, 0]}
            params[m] = {
                name: module.init(next(keys), given[name])["params"]
                for name, module in self._modality_modules(m).items()
            }
        for name, module in self._shared_modules().items():
            arguments = (views, views) if name == "interaction" else (views,)
            params[name] = module.init(next(keys), *arguments)["params"]
        return Variables(params, {"image": _identity_moments(self.image_dim)}, None, tables)

    def observe(self, stats: Tree, train: Mapping[str, Any]) -> Tree:
        """Mean and deviation of the training images; texts are not standardised (CDPAE)."""
        return {"image": measure_moments(train["image"])}
