"""Graph pattern loss of GPLDAN: all distances among the representations of a batch of pairs.

An item i = (v_i, t_i) has N unit vectors (nodes) per modality. With the cosine distance d:

    pair   mean d(v_i^k, t_i^l)                         heterogeneous  mean |d(v_i^k, t_j^l) - τ_ij|
    self   mean [d(x_i^k, x_i^l) - SELF_MARGIN]_+       homogeneous    mean |d(x_i^k, x_j^l) - τ_ij|

τ_ij is the distance of the input features, as in CDPAE (Xu et al., ACM MM 2018); x is v or t.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import l2n
from hmgr_jax.shapes import Array, Bool, Float

EDGES = ("pair", "het", "homo", "self")
SELF_MARGIN = 0.5
"""Distance up to which the nodes of one item have no loss."""


class Side(NamedTuple):
    """One modality of some rows."""

    nodes: Float[Array, "b N D"]
    """Unit vectors."""
    inputs: Float[Array, "b E"]
    """The input features of the nodes."""


def targets(images: Side, texts: Side, all_images: Side, all_texts: Side) -> Float[Array, "b B"]:
    """τ_ij = √(C(v_i, v_j) C(t_i, t_j) + 1e-5) of the input features, without gradient.

    C is the cosine distance.
    """
    distances = [
        1.0 - einsum("ad,bd->ab", l2n(own.inputs), l2n(every.inputs))
        for own, every in ((images, all_images), (texts, all_texts))
    ]
    return jax.lax.stop_gradient(jnp.sqrt(jnp.maximum(distances[0] * distances[1], 0.0) + 1e-5))


def all_others(
    own: Array, every: Array, valid: Bool[Array, " b"], all_valid: Bool[Array, " B"]
) -> Float[Array, "b B"]:
    """Weight 1 for each ordered pair of different valid rows; ``own`` and ``every`` are indices."""
    different = own[:, None] != every[None, :]
    return (different & valid[:, None] & all_valid[None, :]).astype(jnp.float32)


def one_partner(
    draws: Float[Array, " B"], all_valid: Bool[Array, " B"], own: Array
) -> Float[Array, "b B"]:
    """Weights of a random cycle that connects every valid row to another row in both directions."""
    count = jnp.sum(all_valid)
    order = jnp.argsort(jnp.where(all_valid, draws, jnp.inf))
    place = jnp.argsort(order)
    following = jnp.where(place + 1 < count, place + 1, 0)
    partner = order[following]
    every = jnp.arange(len(draws))
    to = (partner[:, None] == every[None, :]) & all_valid[:, None]
    to = to & (partner != every)[:, None]
    both = to.astype(jnp.float32) + to.T.astype(jnp.float32)
    return both[own]


def graph_pattern(
    images: Side,
    texts: Side,
    weights: Float[Array, "b B"],
    valid: Bool[Array, " b"],
    axis: Any,
    *,
    edges: tuple[str, ...] = EDGES[:3],
) -> dict[str, Array]:
    """Mean of every family of edges in ``edges``, the same number on all devices.

    Args:
        images: this device's rows.
        texts: this device's rows.
        weights: weights of edges from local rows to the rows of all devices, see `all_others` and
            `one_partner`.
        valid: local rows that count.
        axis: the model's ``Axis``.
        edges: some of `EDGES`.
    """
    all_images, all_texts = axis.gather((images, texts))
    size = images.nodes.shape[1]
    rows = valid.astype(jnp.float32)
    count = jnp.maximum(axis.sum(jnp.sum(rows)), 1.0)
    total = jnp.maximum(axis.sum(jnp.sum(weights)), 1.0) * size**2
    goal = targets(images, texts, all_images, all_texts)
    found: dict[str, Array] = {}
    if "pair" in edges:
        distance = 1.0 - einsum("akd,ald->akl", images.nodes, texts.nodes)
        found["pair"] = axis.sum(_sum(distance, rows)) / (count * size**2)
    if "het" in edges:
        off = _off_target(images.nodes, all_texts.nodes, goal, weights)
        found["het"] = axis.sum(off) / total
    if "homo" in edges:
        off = _off_target(images.nodes, all_images.nodes, goal, weights)
        off = off + _off_target(texts.nodes, all_texts.nodes, goal, weights)
        found["homo"] = axis.sum(off) / (2.0 * total)
    if "self" in edges and size > 1:
        sums = [_self_distances(side.nodes, rows) for side in (images, texts)]
        found["self"] = axis.sum(sums[0] + sums[1]) / (count * size * (size - 1))
    return found


def _self_distances(nodes: Float[Array, "b N D"], rows: Float[Array, " b"]) -> Float[Array, ""]:
    """Sum over pairs of nodes of an item of their distance beyond ``SELF_MARGIN``."""
    upper = jnp.triu(jnp.ones((nodes.shape[1],) * 2, jnp.float32), 1)[None]
    distance = 1.0 - einsum("akd,ald->akl", nodes, nodes)
    return _sum(jnp.maximum(distance - SELF_MARGIN, 0.0) * upper, rows)


def _sum(x: Float[Array, "b N M"], rows: Float[Array, " b"]) -> Float[Array, ""]:
    """Sum over the rows that count; other rows may hold any values."""
    return jnp.sum(jnp.where(rows[:, None, None] > 0, x, 0.0))


def _off_target(
    own: Float[Array, "b N D"],
    every: Float[Array, "B M D"],
    goal: Float[Array, "b B"],
    weights: Float[Array, "b B"],
) -> Float[Array, ""]:
    """Weighted sum over edges of |distance - target|."""
    distance = 1.0 - einsum("akd,bld->abkl", own, every)
    off = jnp.sum(jnp.abs(distance - goal[:, :, None, None]), axis=(2, 3))
    return jnp.sum(jnp.where(weights > 0, weights * off, 0.0))
