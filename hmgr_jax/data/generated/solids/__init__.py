"""Generated 3D solids of twelve classes, a function of (seed, split, index).

They are always available as data: turned, cut from plates, stacked and pierced.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hmgr_jax.data.generated.solids.kinds import KINDS
from hmgr_jax.data.generated.worlds.scene import generator
from hmgr_jax.data.shapes3d.mesh import Mesh, transform

CLASSES = tuple(KINDS)
STRETCH = (0.75, 1.3)
"""Range of the factors of width, height and depth."""
BEND = 0.06
"""Amplitude of the wave that bends a solid, as a share of its size."""


class Solid(NamedTuple):
    """A mesh with its class and name."""

    name: str
    kind: int
    """Index into `CLASSES`."""
    mesh: Mesh


def make_solid(seed: int, split: str, index: int) -> Solid:
    """Make the solid ``index`` of a split; classes alternate.

    A random shape of its class is stretched along its axes, bent by a slow wave and rotated about
    the vertical.
    """
    rng = generator(seed, split, "solids", index)
    kind = index % len(CLASSES)
    mesh = KINDS[CLASSES[kind]](rng)
    mesh = transform(mesh, np.diag(rng.uniform(*STRETCH, 3)))
    mesh = _bent(mesh, rng)
    angle = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    about_y = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
    return Solid(f"{CLASSES[kind]}_{index:06d}", kind, transform(mesh, about_y))


def _bent(mesh: Mesh, rng: np.random.Generator) -> Mesh:
    """Bend a mesh; equal vertices move equally, so that it stays closed."""
    waves, shifts = rng.normal(0, 1.0, (3, 3)), rng.uniform(0, 2 * np.pi, (1, 3))
    bends = rng.uniform(0, BEND, (1, 3)) * np.ptp(mesh.vertices)
    moves = bends * np.sin(mesh.vertices @ waves + shifts)
    return mesh._replace(vertices=mesh.vertices + moves)
