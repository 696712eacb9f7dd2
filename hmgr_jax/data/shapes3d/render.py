"""Pictures of meshes and point clouds: cameras, visible faces, shading.

A numpy rasteriser finds the visible faces of a generated solid in about a millisecond (64 by 64
pixels); ray casting (the extra ``shapes``) is several times faster for meshes of tens of thousands
of faces. Both give the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.data.shapes3d.mesh import Mesh
from hmgr_jax.errors import UserError

ELEVATION = np.deg2rad(30)
ANGLE = np.deg2rad(50)
"""Field of view."""
DISTANCE = 2.7
"""From the origin; a ball of radius 1 fills 0.85 of the picture's width, so that the centre crop of
7/8 holds the whole object."""


class Camera(NamedTuple):
    """A camera that looks at the origin, with y up."""

    eye: np.ndarray
    """float64 [3]."""
    axes: np.ndarray
    """float64 [3, 3]: rows point right, up, and back to the camera."""


def camera_at(turn: float, elevation: float = ELEVATION) -> Camera:
    """Make a camera at an angle about the vertical (0: the x axis) and an elevation."""
    flat = np.cos(elevation)
    back = np.array([np.cos(turn) * flat, np.sin(elevation), np.sin(turn) * flat])
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    return Camera(DISTANCE * back, np.stack([right, np.cross(back, right), back]))


def cameras_around(views: int) -> list[Camera]:
    """Make cameras at equal angles around the object."""
    return [camera_at(2 * np.pi * k / views) for k in range(views)]


def spread_views(views: int, wanted: int) -> np.ndarray:
    """Choose ``wanted`` evenly spaced indices of ``views`` around an object, int [wanted]."""
    return np.arange(wanted) * views // wanted


def project(points: np.ndarray, camera: Camera, size: int) -> np.ndarray:
    """float64 [n, 3]: pixels to the right and down, and the inverse distance."""
    seen = (points - camera.eye[None]) @ camera.axes.T
    near = -1 / seen[:, 2]
    scale = size / 2 / np.tan(ANGLE / 2)
    right, down = size / 2 + scale * seen[:, 0] * near, size / 2 - scale * seen[:, 1] * near
    return np.stack([right, down, near], axis=1)


def rays(camera: Camera, size: int) -> np.ndarray:
    """Unit directions from the camera through the centre of every pixel, float32 [size², 3]."""
    right, up, back = _directions(size)
    found = np.empty((size * size, 3), np.float32)
    # By columns: a matrix product this thin is slow and starts BLAS threads.
    for k, (a, b, c) in enumerate(camera.axes.T.astype(np.float32)):
        found[:, k] = a * right + b * up + c * back
    return found


@lru_cache(maxsize=2)
def _directions(size: int) -> np.ndarray:
    """Directions along the axes of the camera, float32 [3, size²]."""
    middle = ((np.arange(size) + 0.5) / size * 2 - 1) * np.tan(ANGLE / 2)
    right, up = np.meshgrid(middle, -middle)
    found = np.stack([right, up, -np.ones_like(right)]).reshape(3, -1)
    return (found / np.linalg.norm(found, axis=0, keepdims=True)).astype(np.float32)


Look = Callable[[Camera, int], np.ndarray]
"""(camera, pixels per side) -> int [size, size]: the face in every pixel, -1 for none."""
NOTHING = -1
_FLAT = 1e-12  # twice the area in pixels; faces below are seen edge on


def rasteriser(mesh: Mesh) -> Look:
    """Find visible faces by rasterising a mesh, which must lie in front of the camera."""

    def look(camera: Camera, size: int) -> np.ndarray:
        return _rasterised(project(mesh.vertices, camera, size)[mesh.faces], size)

    return look


def ray_caster(mesh: Mesh) -> Look:
    """Find visible faces by one ray per pixel, with Embree.

    Raises:
        UserError: embreex is not installed.
    """
    make_scene, make_mesh = load_embree()
    scene = make_scene()
    make_mesh(scene, np.ascontiguousarray(mesh.corners, np.float32))

    def look(camera: Camera, size: int) -> np.ndarray:
        directions = rays(camera, size)
        origins = np.tile(camera.eye.astype(np.float32), (len(directions), 1))
        found: np.ndarray = scene.run(origins, directions)
        return found.reshape(size, size)

    return look


def load_embree() -> tuple[Any, Any]:
    """Import Embree's scene and mesh; ``UserError`` names the extra if it is missing."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        raise UserError(
            "Views of meshes are rendered by embreex, which is not installed: pip install "
            "'hmgr-jax[shapes]'."
        ) from None
    return EmbreeScene, TriangleMesh


def _rasterised(corners: np.ndarray, size: int) -> np.ndarray:
    """Visible faces of ``corners`` float64 [F, 3, 3] from `project`."""
    a, b, c = corners.swapaxes(0, 1)
    low = np.clip(np.ceil(corners[..., :2].min(axis=1) - 0.5), 0, size).astype(np.int64)
    high = np.clip(np.floor(corners[..., :2].max(axis=1) + 0.5), 0, size).astype(np.int64)
    extent = np.maximum(high - low, 0)
    twice = _cross(b - a, c - a)
    pixels = np.where(np.abs(twice) > _FLAT, extent.prod(axis=1), 0)
    shown = np.flatnonzero(pixels)
    # One row per face and pixel of its bounding rectangle.
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
    found[pixel[order]] = face[order]  # the nearest is written last
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
    """Barycentric coordinates of corners b and c at a point of each face in ``face``."""
    found = []
    for start, end in ((c, a), (a, b)):  # the edges opposite b and c
        slope_x, slope_y = (start - end)[:, 1] / twice, (end - start)[:, 0] / twice
        offset = -(slope_x * start[:, 0] + slope_y * start[:, 1])
        found.append(slope_x[face] * x + slope_y[face] * y + offset[face])
    return found[0], found[1]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    found: np.ndarray = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return found


FINER = 2
"""Supersampling factor per side."""
AMBIENT, LIGHT = 45.0, 175.0
BACKGROUND = 255
LAMP = np.array([-0.35, 0.5, 0.8])
"""Direction of the light relative to the camera: right, up, back."""


def render(
    mesh: Mesh, cameras: Sequence[Camera], size: int, look: Look | None = None
) -> np.ndarray:
    """Render a mesh from every camera, grey on white, lit from both sides: uint8 [n, size, size].

    Args:
        mesh: within the unit ball.
        cameras: viewpoints.
        size: pixels per side.
        look: finds the visible faces, by default `rasteriser` of the mesh.
    """
    look = look or rasteriser(mesh)
    crosses = mesh.crosses
    lengths = np.linalg.norm(crosses, axis=1, keepdims=True)
    normals = np.divide(crosses, lengths, out=np.zeros_like(crosses), where=lengths > 0)
    lamp = LAMP / np.linalg.norm(LAMP)
    pictures = []
    for camera in cameras:
        seen = look(camera, FINER * size)
        # Not a matrix product, which would start BLAS threads in every worker process.
        light = np.abs((normals * (lamp @ camera.axes)[None]).sum(axis=1))
        # Index -1, no face, is the background.
        grey = np.append(AMBIENT + LIGHT * light, BACKGROUND).astype(np.float32)
        pictures.append(_coarser(grey[seen]))
    return np.stack(pictures)


def render_points(points: np.ndarray, camera: Camera, size: int, radius: float = 0.8) -> np.ndarray:
    """Render points as dots, nearer ones darker, uint8 [size, size].

    Args:
        points: float [n, 3], within the unit ball.
        camera: viewpoint.
        size: pixels per side.
        radius: of a dot, in percent of the picture.
    """
    fine = FINER * size
    x, y, near = project(np.asarray(points, np.float64), camera, fine).T
    reach = max(1, round(radius / 100 * fine))
    grey = np.full((fine, fine), float(BACKGROUND))
    low, high = 1 / (DISTANCE + 1), 1 / (DISTANCE - 1)  # range within the unit ball
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
    """Average `FINER` by `FINER` pixels, uint8."""
    steps = range(FINER)
    parts = [grey[down::FINER, right::FINER] for down in steps for right in steps]
    found: np.ndarray = (np.mean(parts, axis=0) + 0.5).astype(np.uint8)
    return found
