"""Pictures of meshes and of point clouds: grey on white, lit from the camera's left shoulder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmgr_jax.data.shapes3d.cameras import DISTANCE, Camera, projected
from hmgr_jax.data.shapes3d.mesh import Mesh
from hmgr_jax.data.shapes3d.visible import Look, rasteriser

FINER = 2
"""Pixels a side that are averaged into one."""
AMBIENT, LIGHT = 45.0, 175.0
BACKGROUND = 255
LAMP = np.array([-0.35, 0.5, 0.8])
"""Direction of the light from the camera: to the right, upwards, backwards."""


def render(
    mesh: Mesh, cameras: Sequence[Camera], size: int, look: Look | None = None
) -> np.ndarray:
    """A picture from every camera, uint8 [n, size, size].

    Faces are lit from both sides: those of meshes that people have look either way.

    Args:
        mesh: within the unit ball.
        cameras: where it is seen from.
        size: pixels a side.
        look: what finds the visible faces, by default `rasteriser` of the mesh.
    """
    look = look or rasteriser(mesh)
    crosses = mesh.crosses
    lengths = np.linalg.norm(crosses, axis=1, keepdims=True)
    normals = np.divide(crosses, lengths, out=np.zeros_like(crosses), where=lengths > 0)
    lamp = LAMP / np.linalg.norm(LAMP)
    pictures = []
    for camera in cameras:
        seen = look(camera, FINER * size)
        # Not a matrix product: BLAS starts threads for it, and every core has a process.
        light = np.abs((normals * (lamp @ camera.axes)[None]).sum(axis=1))
        # The last is that of -1, nothing.
        grey = np.append(AMBIENT + LIGHT * light, BACKGROUND).astype(np.float32)
        pictures.append(_coarser(grey[seen]))
    return np.stack(pictures)


def render_points(points: np.ndarray, camera: Camera, size: int, radius: float = 0.8) -> np.ndarray:
    """Points as dots, the nearer the darker, uint8 [size, size].

    Args:
        points: float [n, 3], within the unit ball.
        camera: where they are seen from.
        size: pixels a side.
        radius: of a dot, in hundredths of the picture.
    """
    fine = FINER * size
    x, y, near = projected(np.asarray(points, np.float64), camera, fine).T
    reach = max(1, round(radius / 100 * fine))
    grey = np.full((fine, fine), float(BACKGROUND))
    low, high = 1 / (DISTANCE + 1), 1 / (DISTANCE - 1)  # the ends of the unit ball
    shade = 190 - 170 * np.clip((near - low) / (high - low), 0, 1)
    order = np.argsort(near)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if down**2 + right**2 > reach**2:
                continue
            columns, rows = np.floor(x[order]).astype(int) + right, np.floor(y[order]).astype(int)
            rows = rows + down
            fits = (rows >= 0) & (rows < fine) & (columns >= 0) & (columns < fine)
            place = (rows[fits], columns[fits])
            np.minimum.at(grey, place, shade[order][fits])
    return _coarser(grey)


def _coarser(grey: np.ndarray) -> np.ndarray:
    """Means of `FINER` by `FINER` pixels, uint8."""
    steps = range(FINER)
    parts = [grey[down::FINER, right::FINER] for down in steps for right in steps]
    found: np.ndarray = (np.mean(parts, axis=0) + 0.5).astype(np.uint8)
    return found
