"""Primitives of solids: turned on a lathe, or cut from a plate.

Meshes are watertight and upright (y is up), with outward normals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmgr_jax.data.shapes3d.mesh import Mesh, transform, translate

AXIS = 1e-9  # smaller radii are on the axis


def lathe(profile: Sequence[Sequence[float]], segments: int, *, ring: bool = False) -> Mesh:
    """Make a solid of revolution about y.

    Args:
        profile: (radius, height) from the bottom along the outside to the top, beginning and ending
            on
            the axis (radius 0).
        segments: vertices of every circle.
        ring: the profile is a closed curve off the axis.
    """
    levels, rows = [], []
    points: list[np.ndarray] = []
    angles = 2 * np.pi * np.arange(segments) / segments
    around = np.stack([np.cos(angles), np.zeros(segments), -np.sin(angles)], axis=1)
    for radius, height in profile:
        start = sum(map(len, points))
        single = radius < AXIS
        circle = around * (0.0 if single else radius) + np.array([[0.0, height, 0.0]])
        points.append(circle[:1] if single else circle)
        levels.append(start + (np.zeros(segments, int) if single else np.arange(segments)))
    following = [*levels[1:], levels[0]] if ring else levels[1:]
    for below, above in zip(levels, following, strict=False):
        rows.append(_band(below, above))
    faces = np.concatenate(rows)
    return Mesh(np.concatenate(points), faces[_proper(faces)].astype(np.int32))


def plate(outline: np.ndarray, depth: float, hole: np.ndarray | None = None) -> Mesh:
    """Make a plate in the x-y plane, ``depth`` thick along z.

    Args:
        outline: float [n, 2], counter-clockwise; without a ``hole``, star-shaped about (0, 0).
        depth: thickness.
        hole: float [n, 2], an inner outline whose point i matches point i of the outer one.
    """
    front, back = depth / 2, -depth / 2
    n = len(outline)
    inner = np.zeros((1, 2)) if hole is None else hole
    flat = np.concatenate([outline, inner])
    points = np.concatenate([_at(flat, front), _at(flat, back)])
    out, into = np.arange(n), np.full(n, n) if hole is None else n + np.arange(n)
    behind = len(flat)
    faces = [
        _band(out, into),  # front, between the outlines
        _band(into + behind, out + behind),
        _band(out + behind, out),  # the outer wall
    ]
    if hole is not None:
        faces.append(_band(into, into + behind))
    found = np.concatenate(faces)
    return Mesh(points, found[_proper(found)].astype(np.int32))


def arc(outer: np.ndarray, inner: np.ndarray, depth: float) -> Mesh:
    """Make a bent bar ``depth`` thick along z between two open lines float [n, 2],
    counter-clockwise.

    Point i of one line matches point i of the other; both ends are closed.
    """
    n = len(outer)
    flat = np.concatenate([outer, inner])
    points = np.concatenate([_at(flat, depth / 2), _at(flat, -depth / 2)])
    out, into, behind = np.arange(n), n + np.arange(n), 2 * n
    pairs = [(out, into), (into + behind, out + behind), (out + behind, out), (into, into + behind)]
    faces = [_band(a, b, around=False) for a, b in pairs]
    for end, flip in ((0, False), (n - 1, True)):
        a, b, c, d = out[end], into[end], into[end] + behind, out[end] + behind
        caps = np.array([[a, b, c], [a, c, d]])
        faces.append(caps[:, ::-1] if flip else caps)
    return Mesh(points, np.concatenate(faces).astype(np.int32))


def box(size: Sequence[float], centre: Sequence[float] = (0.0, 0.0, 0.0)) -> Mesh:
    """Make a box of a width, height and depth about a centre."""
    w, h = size[0] / 2, size[1] / 2
    outer, inner = np.array([[w, -h], [w, h]]), np.array([[-w, -h], [-w, h]])
    return translate(arc(outer, inner, size[2]), centre)


def cylinder(radius: float, height: float, segments: int, top: float | None = None) -> Mesh:
    """Make a cylinder on y = 0, or a truncated cone with another radius at the ``top``."""
    top = radius if top is None else top
    return lathe([(0, 0), (radius, 0), (top, height), (0, height)], segments)


def ball(radius: float, segments: int, rings: int) -> Mesh:
    """Make a ball about the origin."""
    heights = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    profile = np.stack([np.cos(heights), np.sin(heights)], axis=1) * radius
    profile[[0, -1], 0] = 0
    return lathe(profile.tolist(), segments)


def lay_down(mesh: Mesh) -> Mesh:
    """Rotate a mesh from y to x."""
    return transform(mesh, np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))


def regular(corners: int, radius: float, start: float = 0.0) -> np.ndarray:
    """Outline of a regular polygon, float [corners, 2], counter-clockwise."""
    angles = start + 2 * np.pi * np.arange(corners) / corners
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _at(flat: np.ndarray, z: float) -> np.ndarray:
    return np.concatenate([flat, np.full((len(flat), 1), z)], axis=1)


def _band(a: np.ndarray, b: np.ndarray, *, around: bool = True) -> np.ndarray:
    """Two triangles per segment between the lines ``a`` and ``b``, int [2n, 3]."""
    if around:
        a2, b2 = np.roll(a, -1), np.roll(b, -1)
    else:
        a, b, a2, b2 = a[:-1], b[:-1], a[1:], b[1:]
    return np.concatenate([np.stack([a, a2, b2], axis=1), np.stack([a, b2, b], axis=1)])


def _proper(faces: np.ndarray) -> np.ndarray:
    """Select triangles with three different corners; those at a pole may have fewer."""
    a, b, c = faces.T
    return (a != b) & (b != c) & (c != a)
