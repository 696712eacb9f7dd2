"""Graph pattern loss: all distances among the representations of a batch of pairs (GPLDAN 3.4).

Nodes are N unit vectors an item and modality. Edges join the two items of a pair, items of
different pairs across modalities (heterogeneous) or within one (homogeneous), and the nodes of one
item; the first should be short, the next two as long as the pairs are apart in the original
features. The form of the targets is that of CDPAE (Xu et al., ACM MM 2018).
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


class Side(NamedTuple):
    """One modality of some rows."""

    nodes: Float[Array, "b N D"]
    """Unit vectors."""
    inputs: Float[Array, "b E"]
    """The features that they were made of."""


def targets(images: Side, texts: Side, all_images: Side, all_texts: Side) -> Float[Array, "b B"]:
    """τ, how far apart pairs should be: √(C(v_i, v_j) C(t_i, t_j) + 1e-5) of the input features.

    C is the cosine distance. No gradient goes through it.
    """
    apart = [
        1.0 - einsum("ad,bd->ab", l2n(own.inputs), l2n(every.inputs))
        for own, every in ((images, all_images), (texts, all_texts))
    ]
    return jax.lax.stop_gradient(jnp.sqrt(jnp.maximum(apart[0] * apart[1], 0.0) + 1e-5))


def all_others(
    own: Array, every: Array, valid: Bool[Array, " b"], all_valid: Bool[Array, " B"]
) -> Float[Array, "b B"]:
    """Weight 1 for each ordered pair of different valid rows; rows are known by their index."""
    apart = own[:, None] != every[None, :]
    return (apart & valid[:, None] & all_valid[None, :]).astype(jnp.float32)


def one_partner(
    draws: Float[Array, " B"], all_valid: Bool[Array, " B"], own: Array
) -> Float[Array, "b B"]:
    """Weights that join every valid row to one other, both ways: a cycle in the order of draws."""
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
    self_margin: float = SELF_MARGIN,
) -> dict[str, Array]:
    """The mean of every family of edges in ``edges``, from this device's rows; equal on all.

    Args:
        images: this device's rows.
        texts: of the same pairs.
        weights: of the edges from these rows to those of all devices, see `all_others` and
            `one_partner`.
        valid: rows that count.
        axis: the model's ``Axis``.
        edges: some of `EDGES`.
        self_margin: nodes of one item may be so far apart.
    """
    all_images, all_texts = axis.gather((images, texts))
    size = images.nodes.shape[1]
    rows = valid.astype(jnp.float32)
    count = jnp.maximum(axis.sum(jnp.sum(rows)), 1.0)
    total = jnp.maximum(axis.sum(jnp.sum(weights)), 1.0) * size**2
    goal = targets(images, texts, all_images, all_texts)
    found: dict[str, Array] = {}
    if "pair" in edges:
        apart = 1.0 - einsum("akd,ald->akl", images.nodes, texts.nodes)
        found["pair"] = axis.sum(_sum(apart, rows)) / (count * size**2)
    if "het" in edges:
        off = _off_target(images.nodes, all_texts.nodes, goal, weights)
        found["het"] = axis.sum(off) / total
    if "homo" in edges:
        off = _off_target(images.nodes, all_images.nodes, goal, weights)
        off = off + _off_target(texts.nodes, all_texts.nodes, goal, weights)
        found["homo"] = axis.sum(off) / (2.0 * total)
    if "self" in edges and size > 1:
        sums = [_too_far(side.nodes, rows, self_margin) for side in (images, texts)]
        found["self"] = axis.sum(sums[0] + sums[1]) / (count * size * (size - 1))
    return found


def _too_far(
    nodes: Float[Array, "b N D"], rows: Float[Array, " b"], margin: float
) -> Float[Array, ""]:
    """Sum over an item's pairs of nodes of the distance beyond the margin."""
    upper = jnp.triu(jnp.ones((nodes.shape[1],) * 2, jnp.float32), 1)[None]
    apart = 1.0 - einsum("akd,ald->akl", nodes, nodes)
    return _sum(jnp.maximum(apart - margin, 0.0) * upper, rows)


def _sum(apart: Float[Array, "b N M"], rows: Float[Array, " b"]) -> Float[Array, ""]:
    """Over the rows that count; others may hold anything."""
    return jnp.sum(jnp.where(rows[:, None, None] > 0, apart, 0.0))


def _off_target(
    own: Float[Array, "b N D"],
    every: Float[Array, "B M D"],
    goal: Float[Array, "b B"],
    weights: Float[Array, "b B"],
) -> Float[Array, ""]:
    """Weighted sum over edges of |distance - target|."""
    apart = 1.0 - einsum("akd,bld->abkl", own, every)
    off = jnp.sum(jnp.abs(apart - goal[:, :, None, None]), axis=(2, 3))
    return jnp.sum(jnp.where(weights > 0, weights * off, 0.0))
