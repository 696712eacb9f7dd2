"""Generated solids as a data set of pictures, point clouds and meshes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmgr_jax.data.generated.solids import CLASSES
from hmgr_jax.data.generated.solids.kinds import MOST_FACES
from hmgr_jax.data.generated.solids.objects import GeneratedSolids, SolidObjects, load_or_make
from hmgr_jax.data.shapes3d.augment import Shaping
from hmgr_jax.data.shapes3d.sources import object_split
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

VERSION = 1
"""Raise it with any change of a solid, a view or a point."""
SPARE = 2
"""Points of every solid, as a multiple of those of an item: training samples from them."""


@dataclass(frozen=True)
class Solids:
    """Number of solids in each split; classes alternate."""

    seed: int = 0
    train: int = 1200
    dev: int = 240
    test: int = 480
    views: int = 12
    """Views of each, at equal angles around it."""
    folder: str = ""
    """Folder that stores them for other runs; empty: in memory only."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"data.solids.seed is {self.seed}: give 0 or a larger number.")
        if self.views < 1:
            raise UserError(f"data.solids.views is {self.views}: give 1 or a larger number.")
        for role in ("train", "dev", "test"):
            if getattr(self, role) < len(CLASSES):
                raise UserError(
                    f"data.solids.{role} is {getattr(self, role)}, but there are {len(CLASSES)} "
                    "classes: give at least one solid of each."
                )


def open_solids(
    solids: Solids, shaping: Shaping, roles: Sequence[str] = ("train", "dev", "test")
) -> DataSet:
    """Generate solids of three splits; solid i of a split does not depend on the sizes.

    Views are rendered an eighth larger than ``shaping.crop`` pixels for random crops.
    `Split.labels` are the 12 classes.

    Raises:
        UserError: ``shaping.faces`` is below the largest number of faces, or a stored file is
            damaged.
    """
    if shaping.faces < MOST_FACES:
        raise UserError(
            f"data.faces is {shaping.faces}, but generated solids have up to {MOST_FACES}: set it "
            f"to {MOST_FACES} or more."
        )
    sizes = (solids.views, shaping.crop + shaping.crop // 8, SPARE * shaping.points)
    made = f"solids {VERSION} seed {solids.seed} views, pixels, points {sizes}"
    splits = {role: _split(solids, role, sizes, made, shaping) for role in roles}
    made += f" {solids.train} {solids.dev} {solids.test}"
    digest = hashlib.sha256(made.encode()).hexdigest()
    return DataSet("solids", splits, Vocabulary(MARKS), digest)


def _split(
    solids: Solids, role: str, sizes: tuple[int, int, int], made: str, shaping: Shaping
) -> Split:
    count = getattr(solids, role)
    solids_of_split = GeneratedSolids(solids.seed, role, count, sizes)
    objects = SolidObjects(solids_of_split)
    if solids.folder:
        key = hashlib.sha256(f"{made} {role} {count}".encode()).hexdigest()[:12]
        path = Path(solids.folder, f"solids_{role}_{key}.npz")
        objects = SolidObjects(load_or_make(path, solids_of_split))
    classes = np.arange(count) % len(CLASSES)
    names = [f"{CLASSES[k]}/{CLASSES[k]}_{i:06d}" for i, k in enumerate(classes)]
    return object_split(role, objects, names, classes, len(CLASSES), shaping)
