"""Frames of a clip: which of them are read, and their times as features."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.shapes import Array, Bool, Float, Int

WAVES = 4
"""Number of frequencies in `time_waves`."""


def sample_frames(
    x: Float[Array, "B T F"],
    lengths: Int[Array, " B"],
    count: int,
    sampling: str,
    keys: Keys | None,
) -> tuple[Float[Array, "B K F"], Bool[Array, "B K"], Float[Array, "B K"]]:
    """Sample at most ``count`` frames of every clip; clips with fewer frames keep all of them.

    Args:
        x: features, padded to T frames.
        lengths: number of frames of each clip.
        count: K; 0 samples all T.
        sampling: ``"uniform"``, or ``"random"`` in training (with ``keys``).
        keys: None at evaluation, where sampling is uniform.

    Returns:
        the frames in order, their mask, and their times: 0 is the first frame of the clip, 1 the
        last.
    """
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


def even_frames(lengths: Int[Array, " B"], count: int) -> Int[Array, "B K"]:
    """``round(linspace(0, n - 1, count))`` for every clip of n frames.

    In integers, with halves rounded to even as in numpy: the same frames on every machine.
    """
    steps = jnp.arange(count)[None, :] * (jnp.maximum(lengths, 1) - 1)[:, None]
    down, rest = jnp.divmod(steps, max(count - 1, 1))
    up = 2 * rest + down % 2 > max(count - 1, 1)
    return down + up.astype(down.dtype)


def random_frames(lengths: Int[Array, " B"], count: int, keys: Keys) -> Int[Array, "B K"]:
    """One random frame from each of ``count`` equal segments of clips with at least that many."""
    edges = jnp.arange(count + 1)[None, :] * lengths[:, None] // count
    first, size = edges[:, :-1], jnp.diff(edges, axis=1)
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys.per_row())
    inside = jnp.floor(drawn * size.astype(jnp.float32)).astype(first.dtype)
    return first + jnp.minimum(inside, jnp.maximum(size, 1) - 1)


def time_waves(time: Float[Array, "B K"]) -> Float[Array, "B K W"]:
    """sin(π k t) and cos(π k t) of times t in 0..1, k = 1..WAVES; W = 2 · WAVES."""
    angle = time[:, :, None] * (jnp.pi * jnp.arange(1, WAVES + 1, dtype=jnp.float32))[None, None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
