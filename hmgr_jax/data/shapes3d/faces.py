"""What a network reads of a mesh: its faces as rows of numbers, and which of them share edges."""

from __future__ import annotations

import numpy as np

from hmgr_jax.data.shapes3d.mesh import Mesh

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
