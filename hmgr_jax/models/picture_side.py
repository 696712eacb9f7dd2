"""The fragments of an image: cells of a CNN's last feature map, or precomputed regions."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from hmgr_jax.layers import resnet
from hmgr_jax.layers.batch_norm import ValidRows
from hmgr_jax.layers.dropout import Keys, drop_nodes, dropout
from hmgr_jax.layers.regions import read_regions
from hmgr_jax.models.base import Feature, Items, regions_and_tokens
from hmgr_jax.shapes import Array, Bool, Float


def picture_inputs(model: Any) -> dict[str, dict[str, Feature]]:
    """Inputs: pixels if ``model.picture_size`` is set, else regions; and tokens."""
    found = regions_and_tokens(model.regions, model.region_dim)
    if model.picture_size:
        side = model.picture_size
        found["image"] = {"pixels": Feature((side, side, 3), "float32")}
    return found


def picture_sizes(model: Any, shapes: Any) -> dict[str, Any]:
    """``picture_size``, or ``regions`` and ``region_dim``; a 0 is replaced by the data's size."""
    if "pixels" in shapes:
        return {"picture_size": model.picture_size or shapes["pixels"][0]}
    regions, size = shapes["regions"]
    return {"regions": model.regions or regions, "region_dim": model.region_dim or size}


def picture_parts(model: Any) -> dict[str, tuple[str, ...]]:
    """Parts: the CNN and its stages; none for regions."""
    if not model.picture_size:
        return {}
    return {"cnn": ("image/cnn",), **resnet.parts_within("image/cnn")}


def read_cells(
    model: Any, items: Items, keys: Keys | None, rows: ValidRows | None
) -> tuple[Float[Array, "B N C"], Bool[Array, "B N"]]:
    """Fragments and their mask; call in a compact module.

    With ``rows`` the CNN's batch norm uses batch statistics, unless ``model.cnn_batch_stats`` is
    off.
    """
    drops = model.region_dropout, model.feature_dropout
    if not model.picture_size:
        return read_regions(items, model.region_scale, *drops, keys)
    dtype = jnp.dtype(model.dtype)
    cnn = resnet.ResNet(model.cnn, model.cnn_width, model.cnn_small_stem, dtype, name="cnn")
    grid = cnn(items["pixels"].astype(jnp.float32), rows if model.cnn_batch_stats else None)
    x: Array = grid.reshape(len(grid), -1, grid.shape[-1])
    mask = drop_nodes(jnp.ones(x.shape[:2], bool), drops[0], keys, "regions")
    return dropout(x, drops[1], keys, "features"), mask
