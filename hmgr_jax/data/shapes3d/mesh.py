"""Triangle meshes in numpy: transformations, features of faces, points on the surface."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hmgr_jax.errors import UserError


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
        """float64 [F, 3]: normals with the length of twice the area."""
        a, b, c = self.corners.swapaxes(0, 1)
        return np.cross(b - a, c - a)


def join(parts: Iterable[Mesh]) -> Mesh:
    """Concatenate meshes without merging vertices."""
    listed = list(parts)
    offsets = np.cumsum([0, *(len(part.vertices) for part in listed)]).tolist()
    faces = [part.faces + start for part, start in zip(listed, offsets, strict=False)]
    return Mesh(
        np.concatenate([part.vertices for part in listed]), np.concatenate(faces).astype(np.int32)
    )


def translate(mesh: Mesh, by: Iterable[float]) -> Mesh:
    """Move a mesh."""
    return mesh._replace(vertices=mesh.vertices + np.array(list(by), np.float64))


def transform(mesh: Mesh, matrix: np.ndarray) -> Mesh:
    """Multiply vertices by a rotation or scaling, float [3, 3]; a reflection flips the faces."""
    faces = mesh.faces if np.linalg.det(matrix) > 0 else mesh.faces[:, ::-1]
    return Mesh(mesh.vertices @ np.asarray(matrix, np.float64).T, np.ascontiguousarray(faces))


def volume(mesh: Mesh) -> float:
    """Volume of a watertight mesh; negative if its faces point inwards."""
    a, b, c = mesh.corners.swapaxes(0, 1)
    return float(np.einsum("fd,fd->", a, np.cross(b, c)) / 6)


def is_watertight(mesh: Mesh) -> bool:
    """Whether every edge is shared by two faces that traverse it in opposite directions."""
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    size = len(mesh.vertices) + 1
    along = edges[:, 0].astype(np.int64) * size + edges[:, 1]
    against = edges[:, 1].astype(np.int64) * size + edges[:, 0]
    return len(np.unique(along)) == len(along) and set(along.tolist()) == set(against.tolist())


def sample_points(mesh: Mesh, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sample points float32 [count, 3] uniformly on the surface.

    Raises:
        UserError: the mesh has no area.
    """
    areas = np.linalg.norm(mesh.crosses, axis=1) / 2
    whole = areas.sum()
    if not whole > 0:
        raise UserError(
            "The mesh has no face with an area, so no point can be drawn: leave it out."
        )
    chosen = rng.choice(len(areas), size=count, p=areas / whole)
    root, second = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    a, b, c = mesh.corners[chosen].swapaxes(0, 1)
    found = (1 - root) * a + root * (1 - second) * b + root * second * c
    return found.astype(np.float32)


FEATURES = 15
"""Of a face: its centre (3), its corners (9) and its unit normal (3)."""
JITTERED = 12
"""Number of first features that are positions; the normal is not jittered."""


def normalise(mesh: Mesh) -> Mesh:
    """Centre the bounding box of a mesh, and scale its farthest vertex to distance 1.

    Vertices without a face are ignored. A mesh without extent is only moved.
    """
    used = mesh.vertices[np.unique(mesh.faces)]
    middle = (used.min(axis=0) + used.max(axis=0)) / 2
    reach = float(np.linalg.norm(used - middle[None], axis=1).max())
    return mesh._replace(vertices=(mesh.vertices - middle[None]) / (reach or 1.0))


def face_features(mesh: Mesh) -> np.ndarray:
    """float32 [F, 15]: centre, three corners, unit normal (zero for a face without area)."""
    corners, crosses = mesh.corners, mesh.crosses
    lengths = np.linalg.norm(crosses, axis=1, keepdims=True)
    normals = np.divide(crosses, lengths, out=np.zeros_like(crosses), where=lengths > 0)
    parts = (corners.mean(axis=1), corners.reshape(-1, 9), normals)
    return np.concatenate(parts, axis=1).astype(np.float32)


def edge_neighbours(faces: np.ndarray) -> np.ndarray:
    """int32 [F, 3]: the face across each edge (corners 0-1, 1-2, 2-0), or the face itself.

    Of an edge with more than two faces each gets the next one in a cycle.
    """
    count = len(faces)
    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    of = order // 3  # the face of every edge, equal edges side by side
    alike = edges[order]
    begins = np.r_[True, (alike[1:] != alike[:-1]).any(axis=1)]
    first = np.maximum.accumulate(np.where(begins, np.arange(3 * count), 0))
    last = np.r_[begins[1:], True]
    following = np.where(last, first, np.arange(3 * count) + 1)
    found = np.empty(3 * count, np.int32)
    found[order] = of[following]
    return found.reshape(count, 3)


def fill_faces(
    features: np.ndarray, neighbours: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pad to ``count`` faces by repeating random ones with their neighbours, which no maximum
    notices.

    As in the cross-modal center loss (CVPR 2021). Raises ValueError if there are more already.
    """
    if len(features) > count:
        raise ValueError(f"{len(features)} faces do not fit into {count}")
    more = rng.integers(len(features), size=count - len(features))
    chosen = np.concatenate([np.arange(len(features)), more])
    return features[chosen], neighbours[chosen]
