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
VIEWS = 12
"""Cameras around a cloud or mesh that turns."""


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


def views_of(modality: str, source: Source, number: int, pixels: int) -> np.ndarray:
    """Pictures uint8 [V, S, S, 3] of one item: the views of the data, or `VIEWS` around it."""
    found = source.gather(np.array([number]))
    turns = TURN + 2 * np.pi * np.arange(VIEWS) / VIEWS
    if modality == "image":
        settings = getattr(source, "shaping", None)
        mean, std = (settings.mean, settings.std) if settings else (MEAN, STD)
        drawn = [_view(view, mean, std) for view in found["views"][0]]
    elif modality == "point":
        points = _fitted(found["points"][0])
        drawn = [render_points(points, camera_at(turn), pixels) for turn in turns]
    else:
        drawn = list(render(_mesh_of(found["faces"][0]), [camera_at(t) for t in turns], pixels))
    return np.stack([_to_rgb(picture) for picture in drawn])


def _view(view: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Undo the normalisation of pixels."""
    colours = view * np.array(std, np.float32) + np.array(mean, np.float32)
    return np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)


def _cloud(points: np.ndarray, pixels: int) -> np.ndarray:
    return render_points(_fitted(points), camera_at(TURN), pixels)


def _mesh(faces: np.ndarray, pixels: int) -> np.ndarray:
    return render(_mesh_of(faces), [camera_at(TURN)], pixels)[0]


def _mesh_of(faces: np.ndarray) -> Mesh:
    corners = _fitted(faces[:, 3:12].reshape(-1, 3))
    triangles = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    return Mesh(corners, triangles)


def _fitted(points: np.ndarray) -> np.ndarray:
    """Points scaled into the unit ball, float64."""
    found = np.asarray(points, np.float64)
    return found / max(REACH, float(np.linalg.norm(found, axis=1).max(initial=0.0)))


def _to_rgb(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
