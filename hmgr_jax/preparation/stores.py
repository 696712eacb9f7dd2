"""Features with random access by id: what a store is, and the rows that a plan takes from one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hmgr_jax.preparation.captioned import Captioned
from hmgr_jax.preparation.joining import join
from hmgr_jax.preparation.plan import (
    BOXES,
    FEATURES,
    Chunk,
    Plan,
    SplitPlan,
    blocks,
    boxes,
    features,
)


class Store(Protocol):
    """Features of images, [R, D] each, perhaps with boxes [R, 4] in 0..1."""

    path: Path
    shape: tuple[int, int]
    """(R, D), the same for all."""
    has_boxes: bool
    bytes_an_image: int
    """Memory that reading one takes."""

    @property
    def files(self) -> Mapping[str, Path] | None:
        """{id: file} where every image has a file of its own, else None."""
        ...

    @property
    def ids(self) -> Mapping[str, Any]:
        """{id: which features}; two ids may have the same."""
        ...

    def read(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """``{"ims": [k, R, D], "boxes": float32 [k, R, 4]?}``."""
        ...

    def where(self, name: str) -> str:
        """What a person calls the features of one image."""
        ...

    def identity(self, ids: Sequence[str]) -> str:
        """A digest that changes where the files of ``ids`` do."""
        ...


class StoreSource:
    """The images of a plan, in its order, from a store."""

    def __init__(self, store: Store, names: Mapping[str, Sequence[str]]) -> None:
        self.store, self.names = store, names

    def chunks(self, todo: Mapping[str, np.ndarray]) -> Iterator[Chunk]:
        """Images in the order of the plan."""
        for split, names in self.names.items():
            for rows in blocks(np.flatnonzero(todo[split]), self.store.bytes_an_image):
                wanted = [names[row] for row in rows.tolist()]
                yield Chunk(split, rows, self.store.read(wanted), self._namer(wanted))

    def changed(self, since: int) -> dict[str, np.ndarray]:
        """Images whose own file was changed or put there after ``since``, whatever its date says.

        So a bad file can be replaced and the rest need not be read again.
        """
        files = self.store.files
        if files is None:
            return {}
        return {
            split: np.asarray([files[name].stat().st_ctime_ns > since for name in names], bool)
            for split, names in self.names.items()
        }

    def _namer(self, wanted: Sequence[str]) -> Any:
        return lambda i: self.store.where(wanted[i])


def plan_store(
    splits: Mapping[str, Sequence[Captioned]],
    store: Store,
    *,
    kind: str | None,
    about: Mapping[str, Any],
) -> Plan:
    """Join the images of ``splits`` with a store by id."""
    names = join(splits, store.ids, str(store.path), kind)
    regions, size = store.shape
    arrays = {FEATURES: features(regions, size)}
    if store.has_boxes:
        arrays[BOXES] = boxes(regions)
    plans = {
        name: SplitPlan([image.id for image in found], [image.captions for image in found], arrays)
        for name, found in splits.items()
    }
    used = sorted(name for found in names.values() for name in found)
    source, about = StoreSource(store, names), dict(about)
    if store.files is not None:
        return Plan(plans, source, about, files=store.identity(used))
    return Plan(plans, source, {**about, "features": store.identity(used)})
