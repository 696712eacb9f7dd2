"""Where an object is looked at from."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

ELEVATION = np.deg2rad(30)
ANGLE = np.deg2rad(50)
"""What a camera sees, from edge to edge."""
DISTANCE = 2.7
"""From the origin; a ball of radius 1 fills 0.85 of the picture's width, so that the middle 7/8 of
it, which evaluation sees, holds all of an object."""


class Camera(NamedTuple):
    """A camera that looks at the origin, y upwards in its pictures."""

    eye: np.ndarray
    """float64 [3]."""
    axes: np.ndarray
    """float64 [3, 3]: rows to the right, upwards, and backwards, towards the camera."""


def camera_at(turn: float, elevation: float = ELEVATION) -> Camera:
    """A camera at an angle about the vertical (0: the x axis) and one above the horizon."""
    flat = np.cos(elevation)
    back = np.array([np.cos(turn) * flat, np.sin(elevation), np.sin(turn) * flat])
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    return Camera(DISTANCE * back, np.stack([right, np.cross(back, right), back]))


def around(views: int) -> list[Camera]:
    """Cameras at equal angles around the object."""
    return [camera_at(2 * np.pi * k / views) for k in range(views)]


def spread(views: int, wanted: int) -> np.ndarray:
    """Which ``wanted`` of ``views`` pictures of a round are as far apart as can be, int [wanted].

    In the order of the round: of four the first two are a quarter turn apart, which says more of an
    object than opposite ones do.
    """
    return np.arange(wanted) * views // wanted


def projected(points: np.ndarray, camera: Camera, size: int) -> np.ndarray:
    """float64 [n, 3]: pixels to the right and downwards, and nearness (1 over the distance)."""
    seen = (points - camera.eye[None]) @ camera.axes.T
    near = -1 / seen[:, 2]
    scale = size / 2 / np.tan(ANGLE / 2)
    right, down = size / 2 + scale * seen[:, 0] * near, size / 2 - scale * seen[:, 1] * near
    return np.stack([right, down, near], axis=1)


def rays(camera: Camera, size: int) -> np.ndarray:
    """Unit directions from the camera through the middle of every pixel, float32 [size², 3]."""
    right, up, back = _directions(size)
    found = np.empty((size * size, 3), np.float32)
    # By columns, not as a matrix product: one this thin is slow, and BLAS starts threads for it.
    for k, (a, b, c) in enumerate(camera.axes.T.astype(np.float32)):
        found[:, k] = a * right + b * up + c * back
    return found


@lru_cache(maxsize=2)
def _directions(size: int) -> np.ndarray:
    """float32 [3, size²], along the axes of the camera."""
    middle = ((np.arange(size) + 0.5) / size * 2 - 1) * np.tan(ANGLE / 2)
    right, up = np.meshgrid(middle, -middle)
    found = np.stack([right, up, -np.ones_like(right)]).reshape(3, -1)
    return (found / np.linalg.norm(found, axis=0, keepdims=True)).astype(np.float32)
