"""Generated solids as OFF files in the folders of ModelNet: ``class/train/class_000012.off``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmgr_jax.data.generated.solids.solid import CLASSES, make_solid
from hmgr_jax.data.shapes3d.mesh import turned
from hmgr_jax.data.shapes3d.off import write_off

UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""From y upwards to z upwards, as ModelNet's files stand."""


def write_tree(folder: Path, *, seed: int, train: int, test: int) -> int:
    """Write so many solids of each split; how many files there are."""
    for split, count in (("train", train), ("test", test)):
        for index in range(count):
            solid = make_solid(seed, split, index)
            path = folder / CLASSES[solid.kind] / split / f"{solid.name}.off"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_off(path, turned(solid.mesh, UPRIGHT))
    return train + test
