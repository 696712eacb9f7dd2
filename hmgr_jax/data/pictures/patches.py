"""Descriptions of patches of pictures that need no pretrained network."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hmgr_jax.data.pictures.preprocessing import Preprocessing

NAME = "patches"
"""Of this encoder, where others name a network."""
CELL = 16
"""Size of a patch in pixels."""
COARSE = 8
"""Size of the reduced patch that enters the vector, in pixels."""
ORIENTATIONS = 8
SIZE = 3 * COARSE**2 + 6 + 4 * ORIENTATIONS
"""Numbers per patch: 192 of pixels, 6 of colour, 32 of gradients."""


def preprocessing_of(grid: int) -> Preprocessing:
    """Pictures stretched to ``grid`` patches a side, in 0..1."""
    return Preprocessing(grid * CELL, None, int(Image.Resampling.BOX), (0.0,) * 3, (1.0,) * 3)


def describe_patches(pixels: np.ndarray, grid: int) -> np.ndarray:
    """Pixels in 0..1 as float32 [grid * grid, SIZE], all in 0..1, row by row.

    A patch's vector holds its pixels halved to 8 x 8 x RGB; mean and standard deviation of each
    colour; and for each quarter of it a histogram of 8 orientations of the brightness' gradient
    over half a turn, weighted by its length. No number is negative.
    """
    parts = [_coarse(pixels, grid), _colours(pixels, grid), _gradients(pixels, grid)]
    return np.concatenate(parts, axis=1)


def _patches(values: np.ndarray, grid: int) -> np.ndarray:
    """[side, side, C] as [grid * grid, cell, cell, C]."""
    cell = values.shape[0] // grid
    apart = values.reshape(grid, cell, grid, cell, values.shape[2]).swapaxes(1, 2)
    return apart.reshape(grid * grid, cell, cell, values.shape[2])


def _coarse(pixels: np.ndarray, grid: int) -> np.ndarray:
    """[patches, 192]: means of 2 x 2 pixels."""
    patches = _patches(pixels, grid)
    step = CELL // COARSE
    means = patches.reshape(grid * grid, COARSE, step, COARSE, step, 3).mean(axis=(2, 4))
    return means.reshape(grid * grid, -1)


def _colours(pixels: np.ndarray, grid: int) -> np.ndarray:
    """[patches, 6]: mean and doubled standard deviation (at most 1) of each colour."""
    patches = _patches(pixels, grid)
    spread = np.minimum(2 * patches.std(axis=(1, 2)), np.float32(1))
    return np.concatenate([patches.mean(axis=(1, 2)), spread], axis=1)


def _gradients(pixels: np.ndarray, grid: int) -> np.ndarray:
    """[patches, 32]: a histogram of orientations of each quarter; its sum is the mean length."""
    brightness = pixels.mean(axis=2)
    dy, dx = np.gradient(brightness)
    length = np.minimum(np.hypot(dx, dy), np.float32(1))
    turn = np.mod(np.arctan2(dy, dx), np.float32(np.pi)) / np.float32(np.pi)
    which = np.minimum((turn * ORIENTATIONS).astype(np.int64), ORIENTATIONS - 1)
    votes = length[..., None] * np.eye(ORIENTATIONS, dtype=np.float32)[which]
    quarters = _patches(votes, 2 * grid).mean(axis=(1, 2))
    rows = quarters.reshape(grid, 2, grid, 2, ORIENTATIONS).swapaxes(1, 2)
    return rows.reshape(grid * grid, -1)
