"""Region features as of a detector: the appearance and the box of each object.

A region holds nothing of its neighbours: its crop is drawn without them, and its noise is drawn for
the object, not for its place among the regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmgr_jax.data.generated.worlds.render import background, inks
from hmgr_jax.data.generated.worlds.scene import MOST, Scene
from hmgr_jax.data.generated.worlds.shapes import coverage, extents
from hmgr_jax.data.split import ArraySource

CROP = 8
"""Side of a region's crop in pixels."""
FINE = 12
"""Supersampling factor of a crop in both directions."""
WAVES = 4
"""Frequencies per coordinate."""
WIDTH = 3 * CROP * CROP + 4 + 4 * WAVES
"""Length of a feature: the crop (row by row, RGB in -0.5..0.5), the box (x1, y1, x2, y2 in 0..1),
and sines and cosines of its centre. Four numbers alone would be a hundredth of a feature's
variance, too little for a short training."""
BOX_NOISE = 0.006
"""Standard deviation of the edges of a box, a fraction of the picture; clipped at twice that."""
FEATURE_NOISE = 0.02


def make_regions(scenes: Sequence[Scene], *, vectors: bool = False) -> ArraySource:
    """Make features, boxes and labels of the objects of every scene, in random order.

    Items are "regions" float16 [n, R, D], "n_regions" int32 [n], "boxes" float32 [n, R, 4] (x1, y1,
    x2, y2 in 0..1) and "labels" int16 [n, R] (`Thing.label`, -1 for padding), padded to MOST
    regions; with ``vectors`` also "features" float32 [n, 2 D], the mean and deviation of the
    regions.
    """
    count = len(scenes)
    regions = np.zeros((count, MOST, WIDTH), np.float16)
    boxes = np.zeros((count, MOST, 4), np.float32)
    labels = np.full((count, MOST), -1, np.int16)
    for row, scene in enumerate(scenes):
        number = len(scene.things)
        order = scene.generator("order").permutation(number)
        windows = detect(scene)
        regions[row, :number] = describe_regions(scene, windows)[order]
        boxes[row, :number] = windows[order]
        labels[row, :number] = np.array([thing.label for thing in scene.things])[order]
    n_regions = np.array([len(scene.things) for scene in scenes], np.int32)
    arrays: dict[str, np.ndarray] = {
        "regions": regions,
        "n_regions": n_regions,
        "boxes": boxes,
        "labels": labels,
    }
    if vectors:
        arrays["features"] = _mean_and_deviation(regions, n_regions)
    return ArraySource(arrays)


def _mean_and_deviation(regions: np.ndarray, n_regions: np.ndarray) -> np.ndarray:
    count = n_regions.astype(np.float32)[:, None]
    regions = regions.astype(np.float32)  # zero in padding
    mean = regions.sum(axis=1) / count
    square = (regions**2).sum(axis=1) / count
    spread = np.sqrt(np.maximum(square - mean**2, 0.0))
    return np.concatenate([mean, spread], axis=1)


def detect(scene: Scene) -> np.ndarray:
    """Boxes of the objects in the order of `scene.things` with noise, float64 [N, 4]."""
    reach = extents()[[thing.shape for thing in scene.things]]
    radii = np.array([thing.radius for thing in scene.things])
    exact = np.tile(scene.places, 2) + radii[:, None] * reach
    off = scene.generator("boxes").standard_normal((MOST, 4))[: len(exact)]
    return np.clip(exact + BOX_NOISE * np.clip(off, -2, 2), 0, 1)


def describe_regions(scene: Scene, windows: np.ndarray) -> np.ndarray:
    """Features of the objects in the order of `scene.things`, float64 [N, WIDTH]."""
    share = np.stack(
        [
            coverage(thing, tuple(window), CROP, FINE)
            for thing, window in zip(scene.things, windows.tolist(), strict=True)
        ]
    )[..., None]
    corner, size = windows[:, :2], windows[:, 2:] - windows[:, :2]
    middles = (np.arange(CROP) + 0.5) / CROP
    x, y = (corner[:, :, None] + size[:, :, None] * middles).transpose(1, 0, 2)
    shape = (len(windows), CROP, CROP)
    behind = background(
        scene.backdrop, np.broadcast_to(x[:, None, :], shape), np.broadcast_to(y[:, :, None], shape)
    )
    crops = behind + share * (inks(scene)[:, None, None] - behind)
    pixels = crops.reshape(len(windows), -1) / 255
    noise = scene.generator("features").standard_normal((MOST, 3 * CROP * CROP))
    pixels += FEATURE_NOISE * noise[: len(windows)]
    # The box has noise already.
    place = (corner + size / 2)[:, :, None] * np.pi * np.arange(1, WAVES + 1)
    waves = np.concatenate([np.sin(place), np.cos(place)], axis=2).reshape(len(windows), -1)
    return np.concatenate([np.clip(pixels, 0, 1) - 0.5, windows, waves], axis=1)
