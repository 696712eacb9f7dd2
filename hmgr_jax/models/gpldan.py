"""GPLDAN: graph pattern loss based diversified attention network (Xu et al., ICIP 2020).

Unsupervised retrieval between vectors of images and of texts: each item has K views made by
attention over its features, which see one another and are fused; the loss wants all distances
among the views of a batch to follow those of the original features, and a classifier names the
modality of a view. Only the paper's abstract could be read; what it leaves open follows the
specification's section 3 and CDPAE (ACM MM 2018), and BUILD_NOTES.md says where.

    v [B, 4096], t [B, E] -> hidden [B, D] -> gates, views [B, K, D] -> fused [B, D]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.layers import diversified as parts_of
from hmgr_jax.layers.dropout import Keys, uniform_numbers
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.masking import l2n
from hmgr_jax.layers.neighbours import Neighbourhood
from hmgr_jax.layers.standard import measured, standardised, unmeasured
from hmgr_jax.losses import graph_pattern as pattern
from hmgr_jax.losses.triplet import triplet_of_vectors
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
)
from hmgr_jax.models.ranges import check_ranges
from hmgr_jax.shapes import Array, Float, Int, Tree

CHOICES = {
    "projector": parts_of.PROJECTORS,
    "interaction": parts_of.INTERACTIONS,
    "fusion": parts_of.FUSIONS,
    "modality_cls": parts_of.CLASSIFIERS,
    "objective": ("graph_pattern", "triplet"),
    "similarity": ("cosine", "knn"),
    "standardise": ("image", "both", "none"),
}
AT_LEAST = {"dim": 2, "views": 1, "gate_dim": 1, "neighbours": 1} | dict.fromkeys(
    ("lambda_1", "lambda_mod", "lambda_div", "lambda_self", "lambda_rec", "margin"), 0.0
)


@dataclass(frozen=True)
class GPLDAN(Model):
    """Hyper-parameters of GPLDAN; sizes of 0 come from the data."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    coarse_exact: ClassVar[bool] = True

    dim: int = 1024
    image_dim: int = 0
    text_dim: int = 0
    dtype: str = "float32"
    standardise: str = "image"
    """Which features are brought to mean 0 and deviation 1, of training items."""
    # views
    projector: str = "attention"
    """``linear``: one view, a linear map."""
    views: int = 4
    gate_dim: int = 256
    interaction: str = "intra"
    """``batch_cross``: in training a view also sees those of the paired item."""
    fusion: str = "attn"
    input_mask: bool = False
    """In training zero a share of the features, the same of all items of a batch."""
    mask_image: float = 0.5
    mask_text: float = 0.7
    # loss
    objective: str = "graph_pattern"
    """``triplet``: a hinge on the fused vectors instead, outside the paper."""
    edges: tuple[str, ...] = pattern.EDGES[:3]
    all_pairs: bool = True
    """False: one random partner an item, as CDPAE has it."""
    lambda_1: float = 0.3
    lambda_self: float = 0.0
    self_margin: float = pattern.SELF_MARGIN
    modality_cls: str = "coop"
    lambda_mod: float = 0.1
    lambda_div: float = 0.1
    lambda_rec: float = 0.0
    """Of the reconstruction of the features from the fused vector; 0: none."""
    margin: float = 0.2
    # test
    similarity: str = "cosine"
    neighbours: int = 100
    """k of ``knn``."""

    def __post_init__(self) -> None:
        shares = ("mask_image", "mask_text")
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST, shares=shares)
        unknown = [edge for edge in self.edges if edge not in pattern.EDGES]
        if unknown or not self.edges:
            raise UserError(
                f"model.edges are some of {', '.join(pattern.EDGES)}, not {self.edges}: name at "
                "least one."
            )
        if self.projector == "linear" and self.views != 1:
            raise UserError(
                f"model.projector linear makes one view, but model.views is {self.views}: set it "
                "to 1."
            )

    def fit_to(self, plan: Plan) -> GPLDAN:
        """Sizes from the data."""
        sizes = {m: plan.features[m]["features"] for m in self.modalities}
        return replace(
            self,
            image_dim=self.image_dim or sizes["image"][0],
            text_dim=self.text_dim or sizes["text"][0],
        )

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """One vector an item."""
        sizes = {"image": self.image_dim, "text": self.text_dim}
        return {m: {"features": Feature((size,), "float32")} for m, size in sizes.items()}

    # --- modules ------------------------------------------------------------------------------

    @property
    def _width(self) -> Any:
        return jnp.dtype(self.dtype)

    def _modules(self) -> dict[str, Any]:
        """What both modalities share, as far as it is on."""
        found: dict[str, Any] = {}
        if self.projector == "attention":
            found["interaction"] = parts_of.Interaction(self.interaction != "none", self._width)
            if self.fusion != "mean":
                found["fusion"] = parts_of.Fusion(self.fusion, self._width)
        if self._classifies:
            found["classifier"] = parts_of.ModalityClassifier(self._width)
        return found

    def _own(self, modality: str) -> dict[str, Any]:
        """What a modality has for itself."""
        kind = self.projector
        found: dict[str, Any] = {
            "projector": parts_of.Projector(self.views, self.dim, self.gate_dim, kind, self._width)
        }
        if self.lambda_rec:
            size = self.image_dim if modality == "image" else self.text_dim
            found["decoder"] = Linear(size, dtype=self._width)
        return found

    @property
    def _classifies(self) -> bool:
        return self.modality_cls != "off" and self.lambda_mod > 0

    def parts(self) -> Parts:
        """Each modality's projector, and what they share."""
        return {name: (name,) for name in (*self.modalities, *self._modules())}

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters; features as they are until `observe` has measured them."""
        params: dict[str, Any] = {}
        views = jnp.ones((1, self.views, self.dim), jnp.float32)
        keys = iter(jax.random.split(key, 8))
        for m in self.modalities:
            example = jnp.ones((1, self.inputs()[m]["features"].shape[0] or 1), jnp.float32)
            given = {"projector": example, "decoder": views[:, 0]}
            params[m] = {
                name: module.init(next(keys), given[name])["params"]
                for name, module in self._own(m).items()
            }
        for name, module in self._modules().items():
            arguments = (views, views) if name == "interaction" else (views,)
            params[name] = module.init(next(keys), *arguments)["params"]
        return Variables(params, self._unmeasured(), None, tables)

    def _unmeasured(self) -> Tree:
        sizes = {"image": self.image_dim, "text": self.text_dim}
        return {m: unmeasured(sizes[m]) for m in self._standardised()} or None

    def _standardised(self) -> tuple[str, ...]:
        both = {"both": self.modalities, "image": ("image",), "none": ()}
        return both[self.standardise]

    def observe(self, stats: Tree, train: Mapping[str, Any]) -> Tree:
        """Mean and deviation of the training items."""
        return {m: measured(train[m]) for m in self._standardised()} or None

    # --- one item -----------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """Unit vectors [B, D] (or those of the neighbourhood); in training all that loss needs."""
        if train:
            made = self._views(variables, modality, items, keys)
            return self._training(variables, modality, made, made["views"]), variables.stats
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
        """Training codes; with ``batch_cross`` the context is both items of the pair."""
        made = {m: self._views(variables, m, items[m], keys) for m in self.modalities}
        contexts = {m: found["views"] for m, found in made.items()}
        if self.interaction == "batch_cross":
            together = jnp.concatenate(list(contexts.values()), axis=1)
            contexts = dict.fromkeys(contexts, together)
        codes = {m: self._training(variables, m, made[m], contexts[m]) for m in self.modalities}
        return codes, variables.stats

    def _views(
        self, variables: Variables, modality: str, items: Items, keys: Keys | None
    ) -> dict[str, Array]:
        """The features as the projector reads them, its views and gates."""
        x = items["features"].astype(jnp.float32)
        if variables.stats is not None and modality in variables.stats:
            x = standardised(x, variables.stats[modality])
        own = variables.params[modality]["projector"]
        read = x
        if self.input_mask and keys is not None:
            share = self.mask_image if modality == "image" else self.mask_text
            read = _masked(x, share, keys.named(f"{modality}/mask"))
        views, gates = self._own(modality)["projector"].apply({"params": own}, read)
        return {"inputs": x, "views": views, "gates": gates}

    def _interact(self, variables: Variables, views: Array, context: Array) -> Array:
        module = self._modules().get("interaction")
        if module is None:
            return views
        return module.apply({"params": variables.params["interaction"]}, views, context)

    def _fuse(self, variables: Variables, views: Array) -> Array:
        module = self._modules().get("fusion")
        if module is None:
            return jnp.mean(views, axis=1)
        return module.apply({"params": variables.params["fusion"]}, views)

    def _training(
        self, variables: Variables, modality: str, made: dict[str, Array], context: Array
    ) -> dict[str, Array]:
        views = self._interact(variables, made["views"], context)
        fused = self._fuse(variables, views)
        codes = {**made, "views": views, "fused": fused}
        if self.lambda_rec:
            own = {"params": variables.params[modality]["decoder"]}
            codes["restored"] = self._own(modality)["decoder"].apply(own, fused)
        return codes

    # --- after training -----------------------------------------------------------------------

    @property
    def needs_train(self) -> bool:
        """Whether items are compared by their neighbours in training."""
        return self.similarity == "knn"

    def finalize(
        self,
        variables: Variables,
        train_codes: Mapping[str, Codes],
        rows: Mapping[str, np.ndarray],
    ) -> Variables:
        """The training vectors as a table (spec 3.6)."""
        if not self.needs_train:
            return variables
        images, texts = (np.asarray(train_codes[m]) for m in self.modalities)
        if self.neighbours > len(images) + len(texts):
            raise UserError(
                f"model.neighbours is {self.neighbours}, but there are only "
                f"{len(images) + len(texts)} training items: lower it."
            )
        owner = np.zeros(len(texts), np.int32)
        owner[rows["text"]] = rows["image"]
        return replace(variables, tables=Neighbourhood.of(images, texts, owner))

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
        """Graph pattern + λ_m modality + λ_d diversity + λ_r reconstruction (spec 3.4)."""
        if self.objective == "triplet":
            fused = {m: l2n(codes[m]["fused"]) for m in self.modalities}
            valid = row["valid"]
            total = triplet_of_vectors(
                fused["image"], fused["text"], valid, None, axis, margin=self.margin, hard=False
            )
            return total, {"triplet": total}, variables.stats, None
        terms = self._pattern(codes, row, keys, axis)
        weights = {"pair": 2.0, "het": 2.0 * self.lambda_1, "homo": 2.0 * self.lambda_1}
        weights["self"] = self.lambda_self
        rows = row["valid"].astype(jnp.float32)
        count = jnp.maximum(axis.sum(jnp.sum(rows)), 1.0)
        for name, weight, each in self._per_row(variables, codes):
            terms[name] = axis.sum(jnp.sum(jnp.where(row["valid"], each, 0.0))) / count
            weights[name] = weight
        total = sum((weights[name] * value for name, value in terms.items()), jnp.float32(0.0))
        return total, terms, variables.stats, None

    def _pattern(
        self, codes: Mapping[str, Codes], row: Items, keys: Keys, axis: Axis
    ) -> dict[str, Array]:
        """The families of edges."""
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
            self_margin=self.self_margin,
        )

    def _per_row(
        self, variables: Variables, codes: Mapping[str, Codes]
    ) -> list[tuple[str, float, Float[Array, " b"]]]:
        """(term, its weight, a number for each of this device's rows), summed over modalities."""
        sides = [codes[m] for m in self.modalities]
        found: list[tuple[str, float, Array]] = []
        if self._classifies:
            each = [self._misnamed(variables, s["views"], k) for k, s in enumerate(sides)]
            found.append(("modality", self.lambda_mod, each[0] + each[1]))
        if self.lambda_div and self.views > 1:
            each = [parts_of.diversity(side["gates"]) for side in sides]
            found.append(("diversity", self.lambda_div, each[0] + each[1]))
        if self.lambda_rec:
            off = [jnp.sum((s["inputs"] - s["restored"]) ** 2, axis=1) for s in sides]
            each = [jnp.sqrt(x + 1e-12) for x in off]
            found.append(("reconstruction", self.lambda_rec, each[0] + each[1]))
        return found

    def _misnamed(self, variables: Variables, views: Array, number: int) -> Float[Array, " b"]:
        """Cross entropy of the modality, mean over an item's views."""
        if self.modality_cls == "grl":
            views = parts_of.reversed_gradient(views)
        given = {"params": variables.params["classifier"]}
        logits: Any = self._modules()["classifier"].apply(given, views)
        return -jnp.mean(jax.nn.log_softmax(logits)[..., number], axis=1)


def _masked(x: Float[Array, "b E"], share: float, keys: Keys) -> Float[Array, "b E"]:
    """Zero a share of the columns, the same in all rows of the batch, on whatever device."""
    order = jnp.argsort(jax.random.uniform(keys.base, (x.shape[1],)))
    kept = order >= round(share * x.shape[1])
    return jnp.where(kept[None, :], x, 0.0)
