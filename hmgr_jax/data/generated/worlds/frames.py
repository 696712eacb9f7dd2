"""Frame features like the coarse map of a network, and frames as pictures.

For each colour and each shape, a feature holds the amount around every node of a coarse grid,
weighted by nearness.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from hmgr_jax.data.generated.worlds.clip import MOST_FRAMES, Clip, Shown
from hmgr_jax.data.generated.worlds.render import background
from hmgr_jax.data.generated.worlds.scene import COLOURS, SHAPES
from hmgr_jax.data.generated.worlds.shapes import PALETTE, coverage
from hmgr_jax.data.split import ArraySource

NODES = 4
"""Grid nodes from edge to edge, in both directions."""
PIXELS, FINE = 24, 5
"""Pixels per side of an outline, and its supersampling factor."""
CHANNELS = len(COLOURS) + len(SHAPES)
WIDTH = CHANNELS * NODES * NODES
"""Length of a feature: channel by channel, row by row."""
UNIT = 0.02
"""The unit of area, as a share of the picture: about one object."""
NOISE = 0.02
WHOLE = (0.0, 0.0, 1.0, 1.0)


def make_frames(clips: Sequence[Clip]) -> ArraySource:
    """Make the features of every clip.

    Items are "frames" float16 [n, T, D], padded with zeros to MOST_FRAMES, and "n_frames" int32
    [n].
    """
    frames = np.zeros((len(clips), MOST_FRAMES, WIDTH), np.float16)
    for row, clip in enumerate(clips):
        noise = clip.generator("features").standard_normal((clip.frames, WIDTH), np.float32)
        frames[row, : clip.frames] = describe_frames(clip) + NOISE * noise
    n_frames = np.array([clip.frames for clip in clips], np.int32)
    return ArraySource({"frames": frames, "n_frames": n_frames})


def describe_frames(clip: Clip) -> np.ndarray:
    """Features of the frames without noise, float64 [T, WIDTH]."""
    found = np.zeros((clip.frames, CHANNELS, NODES * NODES))
    for actor, states in zip(clip.actors, clip.states(clip.times), strict=True):
        for frame, state in enumerate(states.round(9).tolist()):
            share = _share(actor.shape, *state)
            found[frame, actor.colour] += share
            found[frame, len(COLOURS) + actor.shape] += share
    return found.reshape(clip.frames, WIDTH)


@lru_cache(maxsize=256)  # siblings share states, and so do frames of still objects
def _share(shape: int, x: float, y: float, radius: float) -> np.ndarray:
    """Amount of an object around each node, in UNITs, float64 [NODES * NODES]."""
    covered = coverage(Shown(shape, x, y, radius), WHOLE, PIXELS, FINE)
    middles = (np.arange(PIXELS) + 0.5) / PIXELS
    apart = np.abs(middles[:, None] * (NODES - 1) - np.arange(NODES))
    near = np.maximum(
        1 - apart, 0
    )  # sums to 1 over the nodes, so that a place is a linear map of a feature
    return (near.T @ covered @ near).reshape(-1) / (UNIT * PIXELS**2)


def render_frames(clip: Clip, pixels: int = 96) -> np.ndarray:
    """Render the frames, uint8 [T, pixels, pixels, 3]."""
    middles = (np.arange(pixels) + 0.5) / pixels
    empty = background(clip.backdrop, *np.meshgrid(middles, middles))
    pictures = np.repeat(empty[None], clip.frames, axis=0)
    for actor, states in zip(clip.actors, clip.states(clip.times), strict=True):
        for frame, state in enumerate(states.tolist()):
            share = coverage(Shown(actor.shape, *state), WHOLE, pixels, 4)[..., None]
            pictures[frame] += share * (PALETTE[actor.colour] - pictures[frame])
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)
