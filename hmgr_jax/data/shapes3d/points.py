"""Points on the surface of a mesh."""

from __future__ import annotations

import numpy as np

from hmgr_jax.data.shapes3d.mesh import Mesh
from hmgr_jax.errors import UserError


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
