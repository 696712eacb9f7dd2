"""The encoders of cross-modal center loss, one a modality, and the classifier that they share."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import Rows
from hmgr_jax.layers.dgcnn import DGCNN
from hmgr_jax.layers.meshnet import Faces, MeshNet
from hmgr_jax.layers.pointnet import PointNet
from hmgr_jax.layers.probabilistic import plain_linear
from hmgr_jax.layers.views import Views
from hmgr_jax.models.base import Items
from hmgr_jax.shapes import Float

SIZES = {"image": "views", "point": "points", "mesh": "faces"}
"""{modality: the input whose shape says how large its items are}."""
CLOUD_ENCODERS = ("dgcnn", "pointnet")


class Head(nn.Module):
    """The classifier that all modalities share."""

    hidden: int
    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b D"]) -> Float[Array, "b K"]:
        """Logits."""
        hidden = plain_linear(self.hidden, x.shape[-1], self.dtype, "hidden")
        return plain_linear(self.classes, self.hidden, self.dtype, "out")(jax.nn.relu(hidden(x)))


def head(model: Any) -> Head:
    """The classifier."""
    return Head(model.head_dim, model.classes, jnp.dtype(model.dtype))


def tower(model: Any, modality: str) -> nn.Module:
    """The encoder of a modality, from what `given` returns to [B, D]."""
    dtype = jnp.dtype(model.dtype)
    if modality == "image":
        return Views(model.dim, model.cnn, model.cnn_width, model.cnn_small_stem, dtype)
    if modality == "mesh":
        return MeshNet(model.dim, model.mesh_width, dtype)
    if model.cloud_encoder == "pointnet":
        return PointNet(model.dim, model.cloud_width, dtype)
    return DGCNN(model.dim, model.cloud_width, model.neighbours, dtype)


def given(modality: str, items: Items, rows: Rows | None = None) -> Any:
    """What an encoder reads of the items; rows that only fill a batch are zero.

    Corners become relative to their face's centre, and a face is its own neighbour where it has
    fewer than three (-1).
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
