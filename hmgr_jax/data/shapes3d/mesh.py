"""Triangle meshes, and the few operations on them that need nothing but numpy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Mesh(NamedTuple):
    """A surface of triangles; y is up, and normals of a solid point outwards."""

    vertices: np.ndarray
    """float64 [V, 3]."""
    faces: np.ndarray
    """int32 [F, 3]: the corners of every triangle, counter-clockwise as seen from outside."""

    @property
    def corners(self) -> np.ndarray:
        """float64 [F, 3 corners, 3]."""
        found: np.ndarray = self.vertices[self.faces]
        return found

    @property
    def crosses(self) -> np.ndarray:
        """float64 [F, 3]: along the normals, twice as long as the areas."""
        a, b, c = self.corners.swapaxes(0, 1)
        return np.cross(b - a, c - a)


def join(parts: Iterable[Mesh]) -> Mesh:
    """Several meshes as one; they are put beside one another, not merged."""
    listed = list(parts)
    offsets = np.cumsum([0, *(len(part.vertices) for part in listed)]).tolist()
    faces = [part.faces + start for part, start in zip(listed, offsets, strict=False)]
    return Mesh(
        np.concatenate([part.vertices for part in listed]),
        np.concatenate(faces).astype(np.int32),
    )


def moved(mesh: Mesh, by: Iterable[float]) -> Mesh:
    """The mesh at another place."""
    return mesh._replace(vertices=mesh.vertices + np.array(list(by), np.float64))


def turned(mesh: Mesh, matrix: np.ndarray) -> Mesh:
    """Every vertex times a rotation or scaling, float [3, 3]; one that mirrors turns faces over."""
    faces = mesh.faces if np.linalg.det(matrix) > 0 else mesh.faces[:, ::-1]
    return Mesh(mesh.vertices @ np.asarray(matrix, np.float64).T, np.ascontiguousarray(faces))


def volume(mesh: Mesh) -> float:
    """What a watertight mesh encloses; negative where its faces look inwards."""
    a, b, c = mesh.corners.swapaxes(0, 1)
    return float(np.einsum("fd,fd->", a, np.cross(b, c)) / 6)


def is_watertight(mesh: Mesh) -> bool:
    """Whether every edge lies between two faces that run along it in opposite directions."""
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    size = len(mesh.vertices) + 1
    along = edges[:, 0].astype(np.int64) * size + edges[:, 1]
    against = edges[:, 1].astype(np.int64) * size + edges[:, 0]
    return len(np.unique(along)) == len(along) and set(along.tolist()) == set(against.tolist())
