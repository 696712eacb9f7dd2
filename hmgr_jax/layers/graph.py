"""Graph reasoning over the fragments of one item, after VSRN's region reasoning (ICCV 2019)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import Linear, einsum, update_norm
from hmgr_jax.layers.masking import masked_softmax
from hmgr_jax.shapes import Array, Bool, Float


def window_support(mask: Bool[Array, "B N"], window: int) -> Bool[Array, "B N N"]:
    """Edges between valid nodes at most ``window`` positions apart, with self loops."""
    place = jnp.arange(mask.shape[1])
    near = jnp.abs(place[:, None] - place[None, :]) <= window
    return near[None] & mask[:, :, None] & mask[:, None, :]


def full_support(mask: Bool[Array, "B N"]) -> Bool[Array, "B N N"]:
    """Edges between all valid nodes, with self loops."""
    return mask[:, :, None] & mask[:, None, :]


def box_geometry(boxes: Float[Array, "B N 4"]) -> Float[Array, "B N N 6"]:
    """Relative position and size of every pair of boxes.

    Args:
        boxes: x1, y1, x2, y2 in 0..1.

    Returns:
        distance of the centres over the diagonal of the picture, cos and sin of its direction, log
        ratios of widths and heights (clamped to [-4, 4]), intersection over union.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    size = jnp.maximum(high - low, 1e-4)
    centre = (low + high) / 2
    offset = centre[:, None, :, :] - centre[:, :, None, :]
    distance = jnp.sqrt(jnp.sum(offset**2, axis=-1, keepdims=True) + 1e-12)
    ratio = jnp.clip(jnp.log(size[:, None, :, :] / size[:, :, None, :]), -4.0, 4.0)
    shared = jnp.minimum(high[:, None], high[:, :, None]) - jnp.maximum(
        low[:, None], low[:, :, None]
    )
    overlap = jnp.prod(jnp.maximum(shared, 0.0), axis=-1)
    area = jnp.prod(size, axis=-1)
    union = area[:, None, :] + area[:, :, None] - overlap
    iou = (overlap / jnp.maximum(union, 1e-8))[..., None]
    return jnp.concatenate([distance / 2**0.5, offset / distance, ratio, iou], axis=-1)


class BoxAffinity(nn.Module):
    """A learned affinity of two boxes, 0 at the start."""

    hidden: int = 32

    @nn.compact
    def __call__(self, boxes: Float[Array, "B N 4"]) -> Float[Array, "B N N"]:
        """Affinity of every ordered pair of boxes."""
        hidden = jax.nn.relu(Linear(self.hidden, name="hidden")(box_geometry(boxes)))
        out = Linear(1, kernel_init=nn.initializers.zeros_init(), name="out")(hidden)
        return out[..., 0]


class TimeAffinity(nn.Module):
    """A learned affinity of two frames by the signed time between them (our addition).

    It starts as ``slope`` times the time, so that messages depend on the order of frames from the
    first step. From equal weights, training does not learn the order (docs/models/hmgr.md).
    """

    hidden: int = 32
    slope: float = 4.0

    @nn.compact
    def __call__(self, time: Float[Array, "B N"]) -> Float[Array, "B N N"]:
        """Affinity of every ordered pair of frames, whose times are in 0..1."""
        ahead = (time[:, None, :] - time[:, :, None])[..., None]
        slope = self.param("slope", nn.initializers.constant(self.slope), (1,), jnp.float32)
        hidden = jax.nn.relu(Linear(self.hidden, name="hidden")(ahead))
        out = Linear(1, kernel_init=nn.initializers.zeros_init(), name="out")(hidden)
        return (out + ahead * slope[None, None, None, :])[..., 0]


class DistanceAffinity(nn.Module):
    """A learned affinity of two words by their signed distance; 0 at the start."""

    furthest: int
    """Larger distances are clipped to this one."""

    @nn.compact
    def __call__(self, count: int) -> Float[Array, "1 N N"]:
        """Affinity of every ordered pair (i, j) of ``count`` words."""
        start = nn.initializers.zeros_init()
        table = self.param("weights", start, (2 * self.furthest + 1,), jnp.float32)
        place = jnp.arange(count)
        offset = jnp.clip(place[None, :] - place[:, None], -self.furthest, self.furthest)
        return table[offset + self.furthest][None]


class GraphReasoning(nn.Module):
    """One layer: x_i <- x_i + LN((Σ_j w_ij x_j W_g) W_o), with weights w of pairwise affinities.

    w is the softmax over the neighbours of (x_i W_θ)·(x_j W_φ) / √D, in float32. The layer norm
    starts with ``gain``: at 0 a new layer is the identity. ``gated`` multiplies the message to a
    node by tanh of a map of that node (our addition).
    """

    features: int
    boxes: bool = False
    gated: bool = False
    gain: float = 0.0
    dtype: Any = jnp.float32
    furthest: int = 0
    """Largest distance of words with its own affinity; 0: no affinity by distance."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        support: Bool[Array, "B N N"],
        boxes: Float[Array, "B N 4"] | None = None,
        time: Float[Array, "B N"] | None = None,
    ) -> Float[Array, "B N D"]:
        """Apply the layer to ``x`` along the edges of ``support``; padding has no edges.

        With ``time``, edges have a further affinity of times, and a message is the difference
        between neighbour and node, which is 0 for two equal frames (our addition).
        """

        def project(name: str) -> Array:
            return Linear(self.features, dtype=self.dtype, name=name)(x)

        affinity = einsum("bid,bjd->bij", project("theta"), project("phi")) / self.features**0.5
        if self.boxes:
            if boxes is None:
                raise ValueError("GraphReasoning(boxes=True) needs boxes")
            affinity = affinity + BoxAffinity(name="box_affinity")(boxes)
        if time is not None:
            affinity = affinity + TimeAffinity(name="time_affinity")(time)
        if self.furthest:
            affinity = affinity + DistanceAffinity(self.furthest, name="distance")(x.shape[1])
        weights = masked_softmax(affinity, support)
        self.sow("intermediates", "weights", weights)  # stored only if a caller collects them
        sent = project("message")
        message = einsum("bij,bjd->bid", weights, sent, dtype=self.dtype)
        if time is not None:
            message = message - jnp.sum(weights, axis=-1, keepdims=True) * sent
        if self.gated:
            message = message * jnp.tanh(project("gate"))
        update = Linear(self.features, dtype=self.dtype, name="out")(message)
        return x + update_norm(self.gain)(update)
