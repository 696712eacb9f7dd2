"""Triangle meshes, and the few operations on them that need nothing but numpy."""

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


def sample_points(mesh: Mesh, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points float32 [count, 3], everywhere on the surface equally likely, in random order.

    Raises:
        UserError: the mesh has no area.
    """
    areas = np.linalg.norm(mesh.crosses, axis=1) / 2
    whole = areas.sum()
    if not whole > 0:
        raise UserError("All its faces are without area, so no point can be drawn: leave it out.")
    chosen = rng.choice(len(areas), size=count, p=areas / whole)
    root, second = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    a, b, c = mesh.corners[chosen].swapaxes(0, 1)
    found = (1 - root) * a + root * (1 - second) * b + root * second * c
    return found.astype(np.float32)


FEATURES = 15
"""Of a face: its centre (3), its corners (9) and its unit normal (3)."""
JITTERED = 12
"""So many first features are places; the normal is left alone."""


def normalised(mesh: Mesh) -> Mesh:
    """The mesh about the middle of its bounding box, its farthest vertex at distance 1.

    Vertices that no face uses count as little as they are seen. A mesh without extent is only
    moved.
    """
    used = mesh.vertices[np.unique(mesh.faces)]
    middle = (used.min(axis=0) + used.max(axis=0)) / 2
    reach = float(np.linalg.norm(used - middle[None], axis=1).max())
    return mesh._replace(vertices=(mesh.vertices - middle[None]) / (reach or 1.0))


def face_features(mesh: Mesh) -> np.ndarray:
    """float32 [F, 15]: centre, three corners, unit normal (zero where a face has no area)."""
    corners, crosses = mesh.corners, mesh.crosses
    lengths = np.linalg.norm(crosses, axis=1, keepdims=True)
    normals = np.divide(crosses, lengths, out=np.zeros_like(crosses), where=lengths > 0)
    parts = (corners.mean(axis=1), corners.reshape(-1, 9), normals)
    return np.concatenate(parts, axis=1).astype(np.float32)


def edge_neighbours(faces: np.ndarray) -> np.ndarray:
    """int32 [F, 3]: the face across each edge (corners 0-1, 1-2, 2-0), its own where there is none.

    Of an edge with more than two faces each takes the next one around.
    """
    count = len(faces)
    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    of = order // 3  # the face of every edge, edges that are one side by side
    alike = edges[order]
    begins = np.r_[True, (alike[1:] != alike[:-1]).any(axis=1)]
    first = np.maximum.accumulate(np.where(begins, np.arange(3 * count), 0))
    last = np.r_[begins[1:], True]
    following = np.where(last, first, np.arange(3 * count) + 1)
    found = np.empty(3 * count, np.int32)
    found[order] = of[following]
    return found.reshape(count, 3)


def filled(
    features: np.ndarray, neighbours: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """As many faces as ``count``: random ones are repeated, with their neighbours, at the end.

    As the authors of the cross-modal center loss do (CVPR 2021): maxima over faces do not notice.
    Raises ValueError where there are more already.
    """
    if len(features) > count:
        raise ValueError(f"{len(features)} faces do not fit into {count}")
    more = rng.integers(len(features), size=count - len(features))
    chosen = np.concatenate([np.arange(len(features)), more])
    return features[chosen], neighbours[chosen]
