"""Cross-modal center loss (Jing et al., CVPR 2021): 3D objects as pictures, clouds and meshes.

Each modality has its own encoder, which ends in a ReLU. One classifier h is shared by all
modalities, and the vectors of a class share a centre C. Similarity is the cosine.

    views [B, V, H, W, 3] -> ResNet-18, mean over views   \\
    points [B, N, 3] -> DGCNN (or PointNet)                > f^m [B, D] -> h -> logits [B, K]
    faces [B, F, 15] with neighbours -> MeshNet           /

    L_ce     = Σ_m mean_i CE(h(f_i^m), y_i)
    L_center = 1/(M B) Σ_m Σ_i |f_i^m - C_{y_i}|²
    L_mse    = Σ_{m<n} mean_{i,d} (f^m - f^n)²
    L        = L_ce + 10 L_center + 0.1 L_mse

A centre is a parameter that follows only the gradient of L_center. See docs/models/center3d.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.errors import UserError
from hmgr_jax.layers import resnet
from hmgr_jax.layers.batch_norm import STATS, ValidRows
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.edges import NormedLinear
from hmgr_jax.layers.linear import Linear, einsum, uniform
from hmgr_jax.layers.masking import l2n
from hmgr_jax.layers.meshnet import Faces, MeshNet
from hmgr_jax.layers.point_clouds import DGCNN, PointNet
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
    example_item,
)
from hmgr_jax.models.options import option
from hmgr_jax.shapes import Array, Float, Int, Num, Tree

SIZES = {"image": "views", "point": "points", "mesh": "faces"}
"""{modality: the input whose shape holds the size of its items}."""
MODALITIES = tuple(SIZES)
CENTERS = "centers"
RATE = 0.5
"""α of ``center_update=wen_ema`` (Wen et al., ECCV 2016)."""


# --- encoders -------------------------------------------------------------------------------------


class Views(nn.Module):
    """Rendered views of an object: the mean over views of ``ReLU(BN(CNN(view) W))``."""

    features: int = 512
    cnn: str = "resnet18"
    width: int = 64
    small_stem: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, views: Float[Array, "b V H W 3"], rows: ValidRows | None
    ) -> Float[Array, "b D"]:
        """Encode views that share all layers.

        In training (with ``rows``) batch norm reads one view of every object at a time, as in the
        released code, which calls the network once per view.
        """
        cnn = resnet.ResNet(self.cnn, self.width, self.small_stem, self.dtype, name="cnn")
        out = NormedLinear(self.features, dtype=self.dtype, name="out")
        count = views.shape[1]
        if rows is None:
            maps = cnn(views.reshape(-1, *views.shape[2:]), None)
            vectors = out(jnp.mean(maps, axis=(1, 2)), None)
            return jnp.mean(vectors.reshape(len(views), count, -1), axis=1)
        pooled = [jnp.mean(cnn(views[:, k], rows), axis=(1, 2)) for k in range(count)]
        found = [out(x, rows) for x in pooled]
        return sum(found[1:], start=found[0]) / count


class Head(nn.Module):
    """The classifier h, shared by all modalities: ``W_2 ReLU(W_1 f + b_1) + b_2``."""

    hidden: int
    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b D"]) -> Float[Array, "b K"]:
        """Logits."""
        x = self._linear(self.hidden, x.shape[-1], "hidden")(x)
        return self._linear(self.classes, self.hidden, "out")(jax.nn.relu(x))

    def _linear(self, features: int, inputs: int, name: str) -> Linear:
        init = uniform(inputs**-0.5)  # as PyTorch draws kernels and biases
        return Linear(features, dtype=self.dtype, kernel_init=init, bias_init=init, name=name)


def encoder_inputs(modality: str, items: Items, rows: ValidRows | None = None) -> Any:
    """The argument of a modality's encoder; items that are not valid in ``rows`` become zero.

    Corners become relative to the centre of their face. A face with fewer than three neighbours
    (-1) is its own neighbour.
    """
    if rows is not None:
        valid = rows.valid
        items = {
            name: jnp.where(valid.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))
            for name, x in items.items()
        }
    if modality != "mesh":
        return items[SIZES[modality]].astype(jnp.float32)
    centers, corners, normals = jnp.split(items["faces"].astype(jnp.float32), (3, 12), axis=-1)
    relative = corners - jnp.tile(centers, (1, 1, 3))
    own = jnp.arange(centers.shape[1], dtype=jnp.int32)[None, :, None]
    neighbours = jnp.where(items["neighbours"] < 0, own, items["neighbours"])
    return Faces(centers, relative, normals, neighbours)


# --- losses ---------------------------------------------------------------------------------------
# A row counts if its weight is 1. Sums are over all devices, so each result is the same on every
# device.


def mean_of_rows(
    each: Float[Array, " b"], weights: Float[Array, " b"], axis: Any
) -> Float[Array, ""]:
    """Mean over the rows that count on all devices; 0 if there are none."""
    count = jnp.maximum(axis.sum(jnp.sum(weights)), 1.0)
    mean: Array = axis.sum(jnp.sum(weights * each)) / count
    return mean


def single_label(labels: Num[Array, "b K"]) -> Int[Array, " b"]:
    """The class of each row from its K labels (0 or 1); -1 with no label or several."""
    found = jnp.argmax(labels, axis=1).astype(jnp.int32)
    return jnp.where(jnp.sum(labels.astype(jnp.int32), axis=1) == 1, found, -1)


def cross_entropy(
    logits: Float[Array, "b K"],
    classes: Int[Array, " b"],
    weights: Float[Array, " b"],
    axis: Any,
) -> Float[Array, ""]:
    """Mean over rows of the negative log probability of their class."""
    found = jax.nn.log_softmax(logits, axis=-1)
    own = jnp.take_along_axis(found, jnp.maximum(classes, 0)[:, None], axis=1)[:, 0]
    return mean_of_rows(-own, weights, axis)


def center_loss(
    vectors: Sequence[Float[Array, "b D"]],
    centers: Float[Array, "K D"],
    classes: Int[Array, " b"],
    weights: Float[Array, " b"],
    axis: Any,
) -> Float[Array, ""]:
    """``1/(M B) Σ_m Σ_i |f_i^m - C_{y_i}|²``, as in the released code.

    The paper's ½ Σ_i Σ_m is M B / 2 times this value.

    Args:
        vectors: one array for each of the M modalities.
        centers: the centres of the K classes.
        classes: the class of each row, in [0, K - 1] for rows that count.
        weights: 1 for rows that count, else 0.
        axis: the model's ``Axis``.
    """
    own = _centers_of_rows(centers, classes)
    each = sum(jnp.sum((x - own) ** 2, axis=1) for x in vectors) / len(vectors)
    return mean_of_rows(jnp.asarray(each), weights, axis)


def least_center_loss(
    centers: Float[Array, "K D"],
    classes: Int[Array, " b"],
    weights: Float[Array, " b"],
    axis: Any,
) -> Float[Array, ""]:
    """Lower bound of the center loss of ReLU vectors: the negative coordinates of the centres."""
    own = _centers_of_rows(centers, classes)
    return mean_of_rows(jnp.sum(jnp.minimum(own, 0.0) ** 2, axis=1), weights, axis)


def _centers_of_rows(centers: Array, classes: Array) -> Float[Array, "b D"]:
    """The centre of each row's class.

    A masked matrix of all distances, as in the released code, would lose digits.
    """
    return centers.at[jnp.maximum(classes, 0)].get(mode="clip")


def pairwise_squares(
    vectors: Sequence[Float[Array, "b D"]], weights: Float[Array, " b"], axis: Any
) -> Float[Array, ""]:
    """``Σ_{m<n} mean_{i,d} (f^m - f^n)²``; with three modalities, three times their variance."""
    each = sum(
        (jnp.mean((a - b) ** 2, axis=1) for a, b in itertools.combinations(vectors, 2)),
        start=jnp.zeros_like(weights),
    )
    return mean_of_rows(each, weights, axis)


def scale_gradient(x: Float[Array, "K D"], factor: float) -> Float[Array, "K D"]:
    """``x`` unchanged; its gradient is multiplied by ``factor``."""
    constant = jax.lax.stop_gradient(x)
    return constant + factor * (x - constant)


def class_sums(
    vectors: Sequence[Float[Array, "b D"]],
    classes: Int[Array, " b"],
    weights: Float[Array, " b"],
    count: int,
    axis: Any,
) -> tuple[Float[Array, "K D"], Float[Array, " K"]]:
    """Sum and number of the vectors of each of K = ``count`` classes; no gradient flows.

    The sums are over all modalities, all rows that count and all devices.
    """
    of_class = jax.nn.one_hot(classes, count, dtype=jnp.float32) * weights[:, None]
    total = jax.lax.stop_gradient(sum(vectors[1:], start=vectors[0]))
    sums = axis.sum(einsum("bk,bd->kd", of_class, total))
    return sums, len(vectors) * axis.sum(jnp.sum(of_class, axis=0))


def move_centers(
    centers: Float[Array, "K D"], sums: Float[Array, "K D"], counts: Float[Array, " K"]
) -> Float[Array, "K D"]:
    """``C_j - α Σ_{y=j} (C_j - f) / (1 + n_j)`` (Wen et al., ECCV 2016)."""
    n = counts[:, None]
    return centers - RATE * (n * centers - sums) / (1.0 + n)


# --- the system -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Center3D(Model):
    """Options of cross-modal center loss; a size of 0 is taken from the data."""

    coarse_exact: ClassVar[bool] = True

    modalities: tuple[str, ...] = MODALITIES  # type: ignore[assignment]
    """Two or all three of `MODALITIES`, in this order."""
    dim: int = option(512, at_least=1)
    classes: int = 0
    picture_size: int = 0
    points: int = 0
    faces: int = 0
    dtype: str = "float32"
    # encoders
    cnn: str = option("resnet18", choices=tuple(resnet.KINDS))
    cnn_width: int = option(64, at_least=1)
    cnn_small_stem: bool = False
    cloud_encoder: str = option("dgcnn", choices=("dgcnn", "pointnet"))
    cloud_width: int = option(64, at_least=1)
    neighbours: int = option(20, at_least=1)
    """k of DGCNN's graphs."""
    mesh_width: int = option(64, at_least=1)
    head_dim: int = option(256, at_least=1)
    # loss; a weight of 0 leaves a term out
    w_ce: float = option(1.0, at_least=0)
    w_center: float = option(10.0, at_least=0)
    w_mse: float = option(0.1, at_least=0)
    center_update: str = option("sgd", choices=("sgd", "wen_ema"))
    """``sgd``: centres are parameters; ``wen_ema``: they move towards the mean of their class."""
    center_init: str = option("randn", choices=("randn", "batch_mean"))
    """``batch_mean``: a centre starts at the mean of the first batch that has its class."""
    # test
    views_test: int = option(4, choices=(1, 2, 4))

    # --- one item ---------------------------------------------------------------------------------

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Codes, Tree]:
        """Unit vectors [B, D]; in training vectors of any length."""
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
        """Training vectors of this device's rows; batch norm uses the valid rows of all devices."""
        codes, rows = {}, ValidRows(row["valid"], axis)
        for m in self.modalities:
            codes[m], stats = self._vectors(variables, m, items[m], rows, True)
            variables = replace(variables, stats=stats)
        return codes, variables.stats

    def _vectors(
        self, variables: Variables, modality: str, items: Items, rows: ValidRows | None, train: bool
    ) -> tuple[Float[Array, "b D"], Tree]:
        if modality == "image" and not train:
            found = items["views"].shape[1]
            if found < self.views_test:
                raise UserError(
                    f"model.views_test is {self.views_test}, but the data has {found} views of an "
                    "object: lower it, or render more views."
                )
            items = {"views": items["views"][:, : self.views_test]}
        given = encoder_inputs(modality, items, rows)
        own = {"params": variables.params[modality], STATS: variables.stats[modality]}
        vectors, changed = self._encoder(modality).apply(own, given, rows, mutable=[STATS])
        return vectors, {**variables.stats, modality: changed[STATS]}

    def _encoder(self, modality: str) -> nn.Module:
        """The encoder of a modality, from `encoder_inputs` to [B, D]."""
        dtype = jnp.dtype(self.dtype)
        if modality == "image":
            return Views(self.dim, self.cnn, self.cnn_width, self.cnn_small_stem, dtype)
        if modality == "mesh":
            return MeshNet(self.dim, self.mesh_width, dtype)
        if self.cloud_encoder == "pointnet":
            return PointNet(self.dim, self.cloud_width, dtype)
        return DGCNN(self.dim, self.cloud_width, self.neighbours, dtype)

    # --- loss -------------------------------------------------------------------------------------

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
        """``w_ce · L_ce + w_center · L_center + w_mse · L_mse``.

        Rows without a class contribute only to L_mse. The term ``center_least`` is the lower bound
        of ``center``: vectors have no negative coordinates, centres do.
        """
        vectors, classes = [codes[m] for m in self.modalities], single_label(row["labels"])
        valid = row["valid"].astype(jnp.float32)
        weights = jnp.where(classes >= 0, valid, 0.0)
        terms: Terms = {}
        stats = variables.stats
        if self.w_ce:
            head = {"params": variables.params["head"]}
            logits: Any = [self._head().apply(head, x) for x in vectors]
            each = [cross_entropy(x, classes, weights, axis) for x in logits]
            terms["ce"] = sum(each[1:], start=each[0])
        if self.w_center:
            centers, stats = self._centers(variables, vectors, classes, weights, axis)
            terms["center"] = center_loss(vectors, centers, classes, weights, axis)
            fixed = jax.lax.stop_gradient(centers)
            terms["center_least"] = least_center_loss(fixed, classes, weights, axis)
        if self.w_mse:
            terms["mse"] = pairwise_squares(vectors, valid, axis)
        share = {"ce": self.w_ce, "center": self.w_center, "mse": self.w_mse}
        total = sum((w * terms[n] for n, w in share.items() if n in terms), jnp.float32(0.0))
        return total, terms, stats, None

    def _head(self) -> Head:
        return Head(self.head_dim, self.classes, jnp.dtype(self.dtype))

    def _centers(
        self, variables: Variables, vectors: list[Array], classes: Array, weights: Array, axis: Axis
    ) -> tuple[Float[Array, "K D"], Tree]:
        """The centres of this step, and the statistics after it."""
        trained = None
        if self.center_update == "sgd":
            trained = scale_gradient(variables.params[CENTERS], 1.0 / self.w_center)
            if self.center_init == "randn":
                return trained, variables.stats
        value, seen = (variables.stats[CENTERS][name] for name in ("value", "seen"))
        sums, counts = class_sums(vectors, classes, weights, self.classes, axis)
        first = (counts > 0) & (seen == 0)
        value = jnp.where(first[:, None], sums / jnp.maximum(counts, 1.0)[:, None], value)
        centers = value if trained is None else value + trained
        if trained is None:
            value = move_centers(value, sums, counts)
        after = {"value": value, "seen": jnp.maximum(seen, (counts > 0).astype(jnp.float32))}
        return centers, {**variables.stats, CENTERS: after}

    # --- options, inputs and parameters -----------------------------------------------------------

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        super().__post_init__()
        known = tuple(m for m in MODALITIES if m in self.modalities)
        if len(known) < 2 or known != self.modalities:
            raise UserError(
                f"model.modalities must be two or three of {', '.join(MODALITIES)} in this order, "
                f"got {', '.join(self.modalities) or 'none'}: change it."
            )
        if not self.w_ce and not self.w_center and not self.w_mse:
            raise UserError("model.w_ce, w_center and w_mse are all 0: set one of them above 0.")

    @property
    def needs_labels(self) -> bool:
        """Always: the class of each object."""
        return True

    def fit_to(self, plan: Plan) -> Center3D:
        """Sizes and the number of classes from the data."""
        sizes = {m: plan.features[m][SIZES[m]] for m in self.modalities}
        if not plan.classes or (self.classes and self.classes != plan.classes):
            raise UserError(
                f"center3d needs class labels: model.classes is {self.classes}, the data has "
                f"{plan.classes}. Give data with one class per object, and leave model.classes "
                "at 0."
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
                "neighbours": Feature((faces, 3), "int32", num_classes=faces),
            },
        }
        return {m: every[m] for m in self.modalities}

    def parts(self) -> Parts:
        """Encoders, the classifier, trained centres, and the CNN with its stages."""
        parts: dict[str, tuple[str, ...]] = {m: (m,) for m in (*self.modalities, "head")}
        if self.center_update == "sgd":
            parts[CENTERS] = (CENTERS,)
        if "image" in self.modalities:
            parts |= {"cnn": ("image/cnn",), **resnet.parts_within("image/cnn")}
        return parts

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters and running statistics; centres that move are statistics."""
        params: dict[str, Any] = {}
        stats: dict[str, Any] = {}
        keys = iter(jax.random.split(key, 5))
        for m in MODALITIES:
            own = next(keys)  # does not depend on the other modalities of the model
            if m in self.modalities:
                given = encoder_inputs(m, example_item(self.inputs()[m]))
                made = self._encoder(m).init(own, given, None)
                params[m], stats[m] = made["params"], made[STATS]
        vectors = jnp.ones((1, self.dim), jnp.float32)
        params["head"] = self._head().init(next(keys), vectors)["params"]
        shape, random = (self.classes, self.dim), self.center_init == "randn"
        start = jax.random.normal(next(keys), shape) if random else jnp.zeros(shape, jnp.float32)
        if self.center_update == "sgd":
            params[CENTERS] = start
        if self.center_update != "sgd" or not random:
            seen = jnp.full(self.classes, 1.0 if random else 0.0, jnp.float32)
            stats[CENTERS] = {"value": start, "seen": seen}
        return Variables(params, stats, None, tables)
