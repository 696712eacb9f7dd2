"""The items of an index, and the vectors that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.errors import FoundNonFinite, UserError


class Item(NamedTuple):
    """The item of a vector."""

    id: str
    caption: str = ""
    picture: str = ""
    """The file of a picture."""
    owner: str = ""
    """The owner, such as the picture of a caption."""


def check_vectors(vectors: Any, dim: int | None, what: str) -> np.ndarray:
    """Vectors as float32 [n, E]; raises UserError for another shape or dimension, or NaN."""
    found = np.ascontiguousarray(vectors, np.float32)
    if found.ndim != 2 or 0 in found.shape:
        raise UserError(
            f"{what} must have shape [at least one, dimension], got {list(found.shape)}."
        )
    if dim is not None and found.shape[1] != dim:
        raise UserError(
            f"{what} have dimension {found.shape[1]}, but the index has {dim}: use the model that "
            "built it."
        )
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
        raise FoundNonFinite(f"{what}: row {row} holds NaN or infinity.")
    return found


def check_items(vectors: np.ndarray, items: Sequence[Item]) -> None:
    """Raise UserError unless there is one item for each vector, with an id of its own."""
    if len(items) != len(vectors):
        raise UserError(
            f"{len(vectors)} vectors need as many items, got {len(items)}: give one per vector."
        )
    seen: set[str] = set()
    for row, item in enumerate(items):
        if not item.id:
            raise UserError(f"Item {row} has an empty id: give every item an id.")
        if item.id in seen:
            raise UserError(f"Two items have the id {item.id!r}: give every item an id of its own.")
        seen.add(item.id)
