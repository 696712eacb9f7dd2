"""Pictures of 3D objects in every modality."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hmgr_jax.data.pictures.pixels import MEAN, STD
from hmgr_jax.data.shapes3d.mesh import Mesh
from hmgr_jax.data.shapes3d.render import camera_at, render, render_points
from hmgr_jax.data.split import Items, Source

TURN = np.deg2rad(30)
"""Camera angle of clouds and meshes."""
REACH = 1.0


def pictures_of(modality: str, source: Source, items: np.ndarray, pixels: int) -> list[np.ndarray]:
    """A picture uint8 [S, S, 3] of each of ``items`` of a source of views, points or faces.

    A view is the model's input in its own size. Clouds and meshes are rendered with ``pixels`` per
    side and scaled to fit.
    """
    found = source.gather(np.asarray(items))
    settings = getattr(source, "shaping", None)
    mean, std = (settings.mean, settings.std) if settings else (MEAN, STD)
    draw: dict[str, Callable[[Items, int], np.ndarray]] = {
        "image": lambda of, k: _view(of["views"][k, 0], mean, std),
        "point": lambda of, k: _cloud(of["points"][k], pixels),
        "mesh": lambda of, k: _mesh(of["faces"][k], pixels),
    }
    return [_to_rgb(draw[modality](found, k)) for k in range(len(items))]


def _view(view: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Undo the normalisation of pixels."""
    colours = view * np.array(std, np.float32) + np.array(mean, np.float32)
    return np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)


def _cloud(points: np.ndarray, pixels: int) -> np.ndarray:
    return render_points(_fitted(points), camera_at(TURN), pixels)


def _mesh(faces: np.ndarray, pixels: int) -> np.ndarray:
    corners = _fitted(faces[:, 3:12].reshape(-1, 3))
    triangles = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    return render(Mesh(corners, triangles), [camera_at(TURN)], pixels)[0]


def _fitted(points: np.ndarray) -> np.ndarray:
    """Points scaled into the unit ball, float64."""
    found = np.asarray(points, np.float64)
    return found / max(REACH, float(np.linalg.norm(found, axis=1).max(initial=0.0)))


def _to_rgb(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
