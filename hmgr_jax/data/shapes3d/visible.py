"""Which face is seen in every pixel: by a small rasteriser, or by rays (the extra ``shapes``).

Both see the same. The rasteriser needs nothing but numpy and takes about a millisecond for the few
faces of a generated solid in 64 by 64 pixels; rays are several times as fast on the meshes of tens
of thousands of faces that people have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hmgr_jax.data.shapes3d.cameras import Camera, projected, rays
from hmgr_jax.data.shapes3d.mesh import Mesh
from hmgr_jax.errors import UserError

Look = Callable[[Camera, int], np.ndarray]
"""(camera, pixels a side) -> int [size, size]: the face in every pixel, -1 where there is none."""
NOTHING = -1
_FLAT = 1e-12  # twice the area, in pixels, below which a face is seen edge on


def rasteriser(mesh: Mesh) -> Look:
    """Look at a mesh by going through the pixels around each of its faces.

    Everything must lie in front of the camera.
    """

    def look(camera: Camera, size: int) -> np.ndarray:
        return _rasterised(projected(mesh.vertices, camera, size)[mesh.faces], size)

    return look


def ray_caster(mesh: Mesh) -> Look:
    """Look at a mesh along a ray a pixel, by Embree.

    Raises:
        UserError: embreex is not installed.
    """
    scene = _scene(mesh)

    def look(camera: Camera, size: int) -> np.ndarray:
        directions = rays(camera, size)
        origins = np.tile(camera.eye.astype(np.float32), (len(directions), 1))
        found: np.ndarray = scene.run(origins, directions)
        return found.reshape(size, size)

    return look


def demand_embree() -> tuple[Any, Any]:
    """Embree's scene and mesh, or a sentence that names the extra."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        raise UserError(
            "Views of meshes are rendered by embreex, which is not here: install it with pip "
            "install 'hmgr-jax[shapes]'."
        ) from None
    return EmbreeScene, TriangleMesh


def _scene(mesh: Mesh) -> Any:
    make_scene, make_mesh = demand_embree()
    scene = make_scene()
    make_mesh(scene, np.ascontiguousarray(mesh.corners, np.float32))
    return scene


def _rasterised(corners: np.ndarray, size: int) -> np.ndarray:
    """``corners`` float64 [F, 3, 3] as `projected` gives them."""
    a, b, c = corners.swapaxes(0, 1)
    low = np.clip(np.ceil(corners[..., :2].min(axis=1) - 0.5), 0, size).astype(np.int64)
    high = np.clip(np.floor(corners[..., :2].max(axis=1) + 0.5), 0, size).astype(np.int64)
    extent = np.maximum(high - low, 0)
    twice = _cross(b - a, c - a)
    pixels = np.where(np.abs(twice) > _FLAT, extent.prod(axis=1), 0)
    shown = np.flatnonzero(pixels)
    # One row for each face and each pixel of the rectangle around it.
    face = np.repeat(shown, pixels[shown])
    starts = np.repeat(np.cumsum(pixels[shown]) - pixels[shown], pixels[shown])
    down, right = np.divmod(np.arange(len(face)) - starts, extent[face, 0])
    x, y = low[face, 0] + right, low[face, 1] + down
    share_b, share_c = _shares(a, b, c, np.where(pixels, twice, 1.0), face, x + 0.5, y + 0.5)
    share_a = 1 - share_b - share_c
    inside = (share_a >= 0) & (share_b >= 0) & (share_c >= 0)
    near = share_a * a[face, 2] + share_b * b[face, 2] + share_c * c[face, 2]
    face, near, pixel = face[inside], near[inside], (y * size + x)[inside]
    found = np.full(size * size, NOTHING, np.int64)
    order = np.argsort(near, kind="stable")
    found[pixel[order]] = face[order]  # the nearest last, which stays
    return found.reshape(size, size)


def _shares(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    twice: np.ndarray,
    face: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric shares of the corners b and c at a point of every face in ``face``."""
    found = []
    for start, end in ((c, a), (a, b)):  # the edge across from b, from c
        slope_x, slope_y = (start - end)[:, 1] / twice, (end - start)[:, 0] / twice
        offset = -(slope_x * start[:, 0] + slope_y * start[:, 1])
        found.append(slope_x[face] * x + slope_y[face] * y + offset[face])
    return found[0], found[1]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    found: np.ndarray = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return found
