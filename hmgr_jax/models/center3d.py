"""Cross-modal center loss (Jing et al., CVPR 2021): shapes as pictures, point clouds and meshes.

Every modality has an encoder of its own, whose vectors end in a ReLU; one classifier reads them
all, and vectors of a class share a centre. Similarity is the cosine.

    views [B, V, H, W, 3] -> ResNet-18, each view   \\
    points [B, N, 3] -> DGCNN                         > [B, 512] -> classes [B, K]
    faces [B, F, 15] with neighbours -> MeshNet     /

    L = CE + 10 · L_center + 0.1 · L_mse, the centres by gradient steps of their own
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers import resnet
from hmgr_jax.layers.batch_norm import STATS, Rows
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.masking import l2n
from hmgr_jax.losses import cross_modal_center as losses
from hmgr_jax.models import center3d_towers as towers
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
)
from hmgr_jax.models.ranges import check_ranges
from hmgr_jax.shapes import Array, Float, Int, Tree

MODALITIES = ("image", "point", "mesh")
CENTERS = "centers"
CHOICES = {
    "cnn": tuple(resnet.KINDS),
    "cloud_encoder": towers.CLOUD_ENCODERS,
    "center_update": losses.UPDATES,
    "center_init": losses.INITS,
}
_COUNTS = ("dim", "head_dim", "cnn_width", "cloud_width", "mesh_width", "neighbours")
AT_LEAST = dict.fromkeys(_COUNTS, 1) | dict.fromkeys(("w_ce", "w_center", "w_mse"), 0.0)


@dataclass(frozen=True)
class Center3D(Model):
    """Hyper-parameters of cross-modal center loss; sizes of 0 come from the data."""

    coarse_exact: ClassVar[bool] = True

    modalities: tuple[str, ...] = MODALITIES  # type: ignore[assignment]
    """Two of these, or all three."""
    dim: int = 512
    classes: int = 0
    picture_size: int = 0
    points: int = 0
    faces: int = 0
    dtype: str = "float32"
    # encoders
    cnn: str = "resnet18"
    cnn_width: int = 64
    cnn_small_stem: bool = False
    cloud_encoder: str = "dgcnn"
    cloud_width: int = 64
    neighbours: int = 20
    """k of DGCNN's graphs."""
    mesh_width: int = 64
    head_dim: int = 256
    # loss
    w_ce: float = 1.0
    w_center: float = 10.0
    w_mse: float = 0.1
    """0 leaves a loss out."""
    center_update: str = "sgd"
    """``wen_ema``: centres are no parameters but move to the mean of their class in the batch."""
    center_rate: float = 0.5
    """Of ``wen_ema``."""
    center_init: str = "randn"
    """``batch_mean``: a class begins with the mean of its vectors in the first batch that has it.
    """
    center_grad_rescale: bool = True
    """Centres follow the gradient of the center loss alone, not of ``w_center`` times it."""
    # test
    views_test: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST, shares=("center_rate",))
        known = [m for m in MODALITIES if m in self.modalities]
        if len(known) < 2 or tuple(known) != self.modalities:
            raise UserError(
                f"model.modalities are two or three of {', '.join(MODALITIES)} in this order, not "
                f"{', '.join(self.modalities) or 'none'}: name them so."
            )
        if self.views_test not in (1, 2, 4):
            raise UserError(f"model.views_test is 1, 2 or 4, not {self.views_test}: choose one.")
        if not self.w_ce and not self.w_center and not self.w_mse:
            raise UserError("model.w_ce, w_center and w_mse are all 0: leave one of them on.")

    @property
    def needs_labels(self) -> bool:
        """Always: a row has the class of its object."""
        return True

    def fit_to(self, plan: Plan) -> Center3D:
        """Sizes and the number of classes from the data."""
        sizes = {m: plan.features[m][towers.SIZES[m]] for m in self.modalities}
        if not plan.classes or (self.classes and self.classes != plan.classes):
            raise UserError(
                f"center3d learns classes, of which model.classes says {self.classes or 'nothing'} "
                f"and the data has {plan.classes}: give data with a class an object, and leave "
                "model.classes at 0."
            )
        points = sizes.get("point", (0,))[0]
        if "point" in sizes and self.cloud_encoder == "dgcnn" and points < self.neighbours:
            raise UserError(
                f"model.neighbours is {self.neighbours}, but clouds have {points} points: lower it."
            )
        return replace(
            self,
            classes=plan.classes,
            picture_size=self.picture_size or sizes.get("image", (0, 0))[1],
            points=self.points or points,
            faces=self.faces or sizes.get("mesh", (0,))[0],
        )

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Views, points, and faces (centre, corners, normal) with their neighbours."""
        side, faces = self.picture_size, self.faces
        every = {
            "image": {"views": Feature((None, side, side, 3), "float32")},
            "point": {"points": Feature((self.points, 3), "float32")},
            "mesh": {
                "faces": Feature((faces, 15), "float32"),
                "neighbours": Feature((faces, 3), "int32", below=faces),
            },
        }
        return {m: every[m] for m in self.modalities}

    def parts(self) -> Parts:
        """Encoders, the classifier, centres where they are trained; the CNN and its stages."""
        parts: dict[str, tuple[str, ...]] = {m: (m,) for m in (*self.modalities, "head")}
        if self.center_update == "sgd":
            parts[CENTERS] = (CENTERS,)
        if "image" in self.modalities:
            parts |= {"cnn": ("image/cnn",), **resnet.parts_within("image/cnn")}
        return parts

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters and running statistics, among which are centres that move."""
        params: dict[str, Any] = {}
        stats: dict[str, Any] = {}
        keys = iter(jax.random.split(key, 5))
        for m in MODALITIES:
            own = next(keys)  # the same for a modality whatever the others are
            if m in self.modalities:
                given = towers.given(m, example(self.inputs()[m]))
                made = towers.tower(self, m).init(own, given, None)
                params[m], stats[m] = made["params"], made[STATS]
        vectors = jnp.ones((1, self.dim), jnp.float32)
        params["head"] = towers.head(self).init(next(keys), vectors)["params"]
        shape, random = (self.classes, self.dim), self.center_init == "randn"
        start = jax.random.normal(next(keys), shape) if random else jnp.zeros(shape, jnp.float32)
        if self.center_update == "sgd":
            params[CENTERS] = start
        if self.center_update != "sgd" or not random:
            seen = jnp.full(self.classes, 1.0 if random else 0.0, jnp.float32)
            stats[CENTERS] = {"value": start, "seen": seen}
        return Variables(params, stats, None, tables)

    # --- one item -----------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """Unit vectors [B, D]; in training the vectors themselves."""
        vectors, stats = self._vectors(variables, modality, items, None, train)
        return (vectors if train else l2n(vectors)), stats

    def encode_batch(
        self,
        variables: Variables,
        items: Mapping[str, Items],
        row: Items,
        *,
        keys: Keys,
        axis: Axis,
    ) -> tuple[dict[str, Codes], Tree]:
        """Training vectors of this device's rows; batch norm sees the valid ones of all devices."""
        codes, rows = {}, Rows(row["valid"], axis)
        for m in self.modalities:
            codes[m], stats = self._vectors(variables, m, items[m], rows, True)
            variables = replace(variables, stats=stats)
        return codes, variables.stats

    def _vectors(
        self, variables: Variables, modality: str, items: Items, rows: Rows | None, train: bool
    ) -> tuple[Float[Array, "b D"], Tree]:
        if modality == "image" and not train:  # of 4 views: the mean of two times two
            found = items["views"].shape[1]
            if found < self.views_test:
                raise UserError(
                    f"model.views_test is {self.views_test}, but the data has {found} views of an "
                    "object: lower it, or give more views."
                )
            items = {"views": items["views"][:, : self.views_test]}
        given = towers.given(modality, items, rows)
        own = {"params": variables.params[modality], STATS: variables.stats[modality]}
        vectors, changed = towers.tower(self, modality).apply(own, given, rows, mutable=[STATS])
        return vectors, {**variables.stats, modality: changed[STATS]}

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
        """``w_ce · CE + w_center · center + w_mse · MSE``; rows without a class count in the MSE.

        ``center_least`` among the terms is what ``center`` cannot go below, as vectors have no
        negative coordinates and centres do.
        """
        vectors, classes = [codes[m] for m in self.modalities], losses.only_class(row["labels"])
        valid = row["valid"].astype(jnp.float32)
        weights = jnp.where(classes >= 0, valid, 0.0)
        terms: Terms = {}
        stats = variables.stats
        if self.w_ce:
            head = {"params": variables.params["head"]}
            logits: Any = [towers.head(self).apply(head, x) for x in vectors]
            each = [losses.cross_entropy(x, classes, weights, axis) for x in logits]
            terms["ce"] = sum(each[1:], start=each[0])
        if self.w_center:
            centers, stats = self._centers(variables, vectors, classes, weights, axis)
            terms["center"] = losses.center_loss(vectors, centers, classes, weights, axis)
            fixed = jax.lax.stop_gradient(centers)
            terms["center_least"] = losses.least_center_loss(fixed, classes, weights, axis)
        if self.w_mse:
            terms["mse"] = losses.pairwise_squares(vectors, valid, axis)
        share = {"ce": self.w_ce, "center": self.w_center, "mse": self.w_mse}
        total = sum((w * terms[n] for n, w in share.items() if n in terms), jnp.float32(0.0))
        return total, terms, stats, None

    def _centers(
        self, variables: Variables, vectors: list[Array], classes: Array, weights: Array, axis: Axis
    ) -> tuple[Float[Array, "K D"], Tree]:
        """The centres that this step compares with, and the statistics after it."""
        trained = None
        if self.center_update == "sgd":
            share = 1.0 / self.w_center if self.center_grad_rescale else 1.0
            trained = losses.slowed(variables.params[CENTERS], share)
            if self.center_init == "randn":
                return trained, variables.stats
        value, seen = (variables.stats[CENTERS][name] for name in ("value", "seen"))
        sums, counts = losses.class_sums(vectors, classes, weights, self.classes, axis)
        first = (counts > 0) & (seen == 0)
        value = jnp.where(first[:, None], sums / jnp.maximum(counts, 1.0)[:, None], value)
        centers = value if trained is None else value + trained
        if trained is None:
            value = losses.moved(value, sums, counts, self.center_rate)
        after = {"value": value, "seen": jnp.maximum(seen, (counts > 0).astype(jnp.float32))}
        return centers, {**variables.stats, CENTERS: after}
