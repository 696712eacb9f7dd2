"""Reduction of meshes to a number of faces, by trimesh and fast-simplification (extra
``shapes``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hmgr_jax.data.shapes3d.mesh import Mesh
from hmgr_jax.errors import UserError

AGGRESSION = (5, 7, 9)
"""Of quadric decimation, tried in turn; higher values reduce more and keep less of the shape."""
CLUSTERS = (48, 32, 24, 16, 12, 8, 6, 4)
"""Cells per side of the grid by which vertices are merged if decimation stops short."""


def simplify_mesh(mesh: Mesh, most: int) -> Mesh:
    """Reduce a mesh to at most ``most`` faces of a similar shape, and merge duplicate vertices.

    By quadric decimation (Garland & Heckbert, 1997), as for the meshes that MeshNet is trained on.
    It stops short for meshes of thousands of loose pieces; then vertices are merged within the
    cells of coarser and coarser grids, and at last only the largest faces are kept.

    Raises:
        UserError: trimesh or fast-simplification is not installed, or no face has an area.
    """
    trimesh, simplify = load_trimesh()
    found = _cleaned(trimesh, mesh)
    if not len(found.faces):
        raise UserError("The mesh has no face with an area: leave it out.")
    if len(found.faces) <= most:
        return found
    for aggression in AGGRESSION:
        tried = _decimated(trimesh, simplify, found, most, aggression)
        if 0 < len(tried.faces) <= most:
            return tried
    for cells in CLUSTERS:
        tried = _cleaned(trimesh, _clustered(found, cells))
        if 0 < len(tried.faces) <= most:
            return tried
    areas = np.linalg.norm(found.crosses, axis=1)
    largest = np.sort(np.argsort(-areas, kind="stable")[:most])
    return _cleaned(trimesh, found._replace(faces=found.faces[largest]))


def load_trimesh() -> tuple[Any, Any]:
    """Import trimesh and fast-simplification; ``UserError`` names the extra if one is missing."""
    try:
        import trimesh
        from fast_simplification import simplify
    except ImportError as error:
        raise UserError(
            f"Meshes are simplified by {error.name}, which is not installed: pip install "
            "'hmgr-jax[shapes]'."
        ) from None
    return trimesh, simplify


def _cleaned(trimesh: Any, mesh: Mesh) -> Mesh:
    """Remove duplicate vertices and faces, and faces without area."""
    found = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    found.merge_vertices(merge_tex=True, merge_norm=True)
    found.update_faces(found.nondegenerate_faces(height=None) & found.unique_faces())
    found.remove_unreferenced_vertices()
    return Mesh(np.asarray(found.vertices, np.float64), np.asarray(found.faces, np.int32))


def _decimated(trimesh: Any, simplify: Any, mesh: Mesh, most: int, aggression: int) -> Mesh:
    vertices, faces = simplify(
        np.ascontiguousarray(mesh.vertices, np.float32),
        np.ascontiguousarray(mesh.faces, np.int32),
        target_count=most,
        agg=aggression,
    )
    if not len(faces) or not np.isfinite(vertices).all():
        return mesh
    return _cleaned(trimesh, Mesh(vertices.astype(np.float64), faces.astype(np.int32)))


def _clustered(mesh: Mesh, cells: int) -> Mesh:
    """Merge the vertices of each cell of a grid into their mean."""
    low = mesh.vertices.min(axis=0)
    side = float(np.ptp(mesh.vertices, axis=0).max()) / cells or 1.0
    cell = np.floor((mesh.vertices - low[None]) / side).astype(np.int64)
    _, of, counts = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
    of = of.reshape(-1)
    sums = np.stack([np.bincount(of, mesh.vertices[:, k]) for k in range(3)], axis=1)
    return Mesh(sums / counts[:, None], of[mesh.faces].astype(np.int32))
