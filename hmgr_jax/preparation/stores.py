"""Features with random access by id: what a store is, and the rows that a plan takes from one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hmgr_jax.data.text.captioned import Captioned
from hmgr_jax.preparation.filling import fill, fitting, plan_arrays
from hmgr_jax.preparation.joining import join
from hmgr_jax.preparation.plan import (
    BOXES,
    CHUNK_BYTES,
    FEATURES,
    Array,
    Chunk,
    Plan,
    SplitPlan,
    blocks,
)


class Store(Protocol):
    """Features of images, [R, D] each, perhaps with boxes [R, 4] in 0..1; or of videos."""

    path: Path
    size: int
    """D, the same for all."""
    has_boxes: bool
    exact: bool
    """Whether `regions` is known and not merely the most there can be."""
    slow: bool
    """Whether reading a few takes seconds, so that they are written before more are read."""

    @property
    def files(self) -> Mapping[str, Path] | None:
        """{id: file} where every image has a file of its own, else None."""
        ...

    @property
    def ids(self) -> Mapping[str, Any]:
        """{id: which features}; two ids may have the same."""
        ...

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """R of each, int [k], without reading the features."""
        ...

    def read(self, name: str) -> dict[str, np.ndarray]:
        """``{"ims": [R, D], "boxes": float32 [R, 4]?}`` of one image."""
        ...

    def where(self, name: str) -> str:
        """What a person calls the features of one image."""
        ...

    def identity(self, ids: Sequence[str]) -> str:
        """A digest that changes where the files of ``ids`` do."""
        ...


class StoreSource:
    """The images of a plan, in its order, from a store."""

    def __init__(
        self,
        store: Store,
        names: Mapping[str, Sequence[str]],
        arrays: Mapping[str, Array],
        cut: int | None,
    ) -> None:
        self.store, self.names, self.arrays, self.cut = store, names, arrays, cut

    def chunks(self, todo: Mapping[str, np.ndarray]) -> Iterator[Chunk]:
        """Images in the order of the plan."""
        row_bytes = 4 * self.arrays[FEATURES].row_bytes  # as read, in float32, in float16
        row_bytes = max(row_bytes, CHUNK_BYTES // 8) if self.store.slow else row_bytes
        for split, names in self.names.items():
            for rows in blocks(np.flatnonzero(todo[split]), row_bytes):
                wanted = [names[row] for row in rows.tolist()]
                found = [self._one(name) for name in wanted]
                yield Chunk(split, rows, fill(found, self.arrays), self._namer(wanted))

    def _one(self, name: str) -> dict[str, np.ndarray]:
        return fitting(self.store.read(name), self.arrays, self.cut, self.store.where(name))

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
    regions: int | None = None,
    visual: str = "image",
) -> Plan:
    """Join the images or videos of ``splits`` with a store by id, at most ``regions`` of each."""
    names = join(splits, store.ids, str(store.path), kind)
    used = sorted(name for found in names.values() for name in found)
    counts, boxes = store.regions(used), [BOXES] if store.has_boxes else []
    arrays = plan_arrays(store.size, boxes, counts, regions, exact=store.exact)
    plans = {
        name: SplitPlan([image.id for image in found], [image.captions for image in found], arrays)
        for name, found in splits.items()
    }
    source, about = StoreSource(store, names, arrays, regions), dict(about)
    if store.files is not None:
        return Plan(plans, source, about, visual, files=store.identity(used))
    return Plan(plans, source, {**about, "features": store.identity(used)}, visual)
