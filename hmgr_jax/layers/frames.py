"""From the frames of a clip to nodes: which frames are read, and when in the clip they were."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from hmgr_jax.layers.dropout import Keys, drop_nodes, dropout
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.layers.regions import scale_features
from hmgr_jax.shapes import Array, Bool, Float, Int

SAMPLINGS = ("uniform", "random")
WAVES = 4
"""Frequencies that the time of a frame is written in."""


def even_frames(lengths: Int[Array, " B"], count: int) -> Int[Array, "B K"]:
    """``round(linspace(0, n - 1, count))`` of every clip of n frames (HMGR spec 3.9).

    In whole numbers, a half going to the even one as numpy does: the same frames on every machine.
    """
    steps = jnp.arange(count)[None, :] * (jnp.maximum(lengths, 1) - 1)[:, None]
    down, rest = jnp.divmod(steps, max(count - 1, 1))
    up = 2 * rest + down % 2 > max(count - 1, 1)
    return down + up.astype(down.dtype)


def random_frames(lengths: Int[Array, " B"], count: int, keys: Keys) -> Int[Array, "B K"]:
    """One frame, at random, of each of ``count`` equal stretches of every clip.

    A clip must have at least as many frames as there are stretches.
    """
    edges = jnp.arange(count + 1)[None, :] * lengths[:, None] // count
    first, size = edges[:, :-1], jnp.diff(edges, axis=1)
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys.per_row())
    inside = jnp.floor(drawn * size.astype(jnp.float32)).astype(first.dtype)
    return first + jnp.minimum(inside, jnp.maximum(size, 1) - 1)


def sample_frames(
    x: Float[Array, "B T F"],
    lengths: Int[Array, " B"],
    count: int,
    sampling: str,
    keys: Keys | None,
) -> tuple[Float[Array, "B K F"], Bool[Array, "B K"], Float[Array, "B K"]]:
    """At most ``count`` frames of every clip, 0 for all of them; shorter clips keep theirs.

    Args:
        x: features, padded to T frames.
        lengths: true number of frames of each clip.
        count: K, or 0.
        sampling: ``"uniform"``, or ``"random"`` in training (with ``keys``).
        keys: None at evaluation, where frames always are uniform.

    Returns:
        the frames in order, which of them are true, and the time of each: 0 for the first frame
        of the clip, 1 for the last.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"frame_sampling is one of {', '.join(SAMPLINGS)}, not {sampling!r}")
    last = jnp.maximum(lengths - 1, 1).astype(jnp.float32)
    if not count or x.shape[1] <= count:
        time = jnp.arange(x.shape[1], dtype=jnp.float32)[None, :] / last[:, None]
        return x, length_mask(lengths, x.shape[1]), time
    if sampling == "random" and keys is not None:
        chosen = random_frames(lengths, count, keys.named("frames"))
    else:
        chosen = even_frames(lengths, count)
    place = jnp.where(lengths[:, None] > count, chosen, jnp.arange(count)[None, :])
    mask = length_mask(jnp.minimum(lengths, count), count)
    time = place.astype(jnp.float32) / last[:, None]
    return jnp.take_along_axis(x, place[:, :, None], axis=1), mask, time


def time_waves(time: Float[Array, "B K"]) -> Float[Array, "B K W"]:
    """Sines and cosines of a time in 0..1, of half a turn and its multiples, W = 2 · WAVES."""
    angle = time[:, :, None] * (jnp.pi * jnp.arange(1, WAVES + 1, dtype=jnp.float32))[None, None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def read_frames(
    items: Mapping[str, Array],
    scale: str,
    count: int,
    sampling: str,
    positions: bool,
    frame_dropout: float,
    feature_dropout: float,
    keys: Keys | None,
) -> tuple[Float[Array, "B K F"], Bool[Array, "B K"], Float[Array, "B K"]]:
    """Scaled features of the frames that are read, their mask and their times.

    With ``positions`` the waves of the times come after the features, too.
    """
    x, mask, time = sample_frames(items["frames"], items["n_frames"], count, sampling, keys)
    x = dropout(scale_features(x, scale), feature_dropout, keys, "features")
    mask = drop_nodes(mask, frame_dropout, keys, "frame_nodes")
    return (jnp.concatenate([x, time_waves(time)], axis=-1) if positions else x), mask, time
