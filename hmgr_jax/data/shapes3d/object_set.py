"""A split of objects: every object a row, its class the label by which it is evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmgr_jax.data.shapes3d.augment import Shaping
from hmgr_jax.data.shapes3d.sources import CloudSource, MeshSource, ViewSource
from hmgr_jax.data.shapes3d.store import Objects
from hmgr_jax.data.split import Source, Split

SOURCES: dict[str, type[ViewSource] | type[CloudSource] | type[MeshSource]] = {
    "image": ViewSource,
    "point": CloudSource,
    "mesh": MeshSource,
}


def object_split(
    name: str,
    objects: Objects,
    ids: Sequence[str],
    classes: np.ndarray,
    count: int,
    shaping: Shaping,
) -> Split:
    """A split of all modalities that the objects have.

    Args:
        name: train, dev or test.
        objects: where they are read from.
        ids: ``class/name`` of each.
        classes: int [n], which of the classes each belongs to.
        count: how many classes there are in all splits.
        shaping: sizes and augmentation.
    """
    number = np.arange(len(objects), dtype=np.int32)
    labels = np.eye(count, dtype=np.uint8)[np.asarray(classes, np.int64)]
    sources: dict[str, Source] = {m: SOURCES[m](objects, shaping) for m in objects.modalities}
    return Split(
        name=name,
        sources=sources,
        groups=dict.fromkeys(sources, number),
        rows=dict.fromkeys(sources, number),
        ids=dict.fromkeys(sources, tuple(ids)),
        labels=dict.fromkeys(sources, labels),
    )
