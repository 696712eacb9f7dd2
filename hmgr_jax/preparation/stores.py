"""Features with random access by id, and the rows of a plan that come from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hmgr_jax.data.regions.row_arrays import COUNTS, KINDS
from hmgr_jax.data.text.captioned import Captioned
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import (
    BOXES,
    CHUNK_BYTES,
    FEATURES,
    Array,
    Chunk,
    Plan,
    SplitPlan,
    beside,
    blocks,
    features,
)


class Store(Protocol):
    """Features of images, [R, D] each, perhaps with boxes [R, 4] in 0..1; or of videos."""

    path: Path
    size: int
    """D, the same for all."""
    has_boxes: bool
    exact: bool
    """Whether `regions` is exact, and not only an upper bound."""
    slow: bool
    """Whether reading takes seconds, so that rows are written in small chunks."""

    @property
    def files(self) -> Mapping[str, Path] | None:
        """{id: file} if every image has its own file, else None."""
        ...

    @property
    def ids(self) -> Mapping[str, Any]:
        """{id: key of its features}; two ids may share a key."""
        ...

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """R of each, int [k], without reading the features."""
        ...

    def read(self, name: str) -> dict[str, np.ndarray]:
        """``{"ims": [R, D], "boxes": float32 [R, 4]?}`` of one image."""
        ...

    def where(self, name: str) -> str:
        """Name the features of one image in a message."""
        ...

    def identity(self, ids: Sequence[str]) -> str:
        """A digest of the files of ``ids``."""
        ...


class StoreSource:
    """The images of a plan, in order, from a store."""

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
        """Images whose file was changed or added after ``since``, by the change time of the inode.

        A bad file can so be replaced without reading the rest again.
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


ID_KINDS = ("filename", "stem", "cocoid", "padded", "imgid")


def join(
    splits: Mapping[str, Sequence[Captioned]], have: Mapping[str, Any], place: str, kind: str | None
) -> dict[str, list[str]]:
    """{split: the features' id of each image}.

    ``have`` is {id of features: what they are}, so that two ids may be the same features;
    ``place`` is where they are, for people; ``kind`` says which names of an image the ids are,
    None that the one kind is taken which fits all images.

    Raises:
        UserError: the first image that has no features, or several kinds fit differently.
    """
    images = [image for found in splits.values() for image in found]
    kinds = _kinds(images, kind)
    missing = {k: next((i for i in images if i.names[k] not in have), None) for k in kinds}
    fitting = [k for k in kinds if missing[k] is None]
    if not fitting:
        closest = max(kinds, key=lambda k: sum(i.names[k] in have for i in images))
        first = missing[closest]
        assert first is not None
        raise UserError(
            f"{place} has no features of {first.names[closest]!r} ({first.where}), looked for by "
            f"{closest}: extract them, take its captions out, or say with --key what the ids of "
            "the features are."
        )
    chosen = fitting[0]
    for other in fitting[1:]:
        apart = next((i for i in images if have[i.names[other]] != have[i.names[chosen]]), None)
        if apart is not None:
            raise UserError(
                f"{place} has features of {apart.names[chosen]!r} and of {apart.names[other]!r}, "
                f"which are {chosen} and {other} of {apart.id}: say with --key which is meant."
            )
    _check_once(images, chosen, have)
    return {name: [image.names[chosen] for image in found] for name, found in splits.items()}


def _kinds(images: Sequence[Captioned], kind: str | None) -> list[str]:
    """The kinds of ids that every image has, or the requested one."""
    kinds = [k for k in ID_KINDS if all(k in image.names for image in images)]
    if kind is None:
        return kinds
    if kind not in kinds:
        raise UserError(f"--key is {kind!r} where the images have {', '.join(kinds)}: choose one.")
    return [kind]


def _check_once(images: Sequence[Captioned], kind: str, have: Mapping[str, Any]) -> None:
    """Check that no two images share their features."""
    seen: dict[Any, Captioned] = {}
    for image in images:
        former = seen.setdefault(have[image.names[kind]], image)
        if former is not image:
            raise UserError(
                f"{image.where} and {former.where} are both {image.names[kind]!r} by {kind}: name "
                "one of them otherwise."
            )


Found = Mapping[str, np.ndarray]
"""Arrays of one image: features [n, D], and boxes, labels and so on [n, ...]."""


def plan_arrays(
    size: int, others: Sequence[str], counts: np.ndarray, cut: int | None, *, exact: bool = True
) -> dict[str, Array]:
    """The arrays to write for images with ``counts`` regions, the first ``cut`` of each.

    ``others`` name what there is beside the features of ``size`` numbers a region. Counts are
    written where they differ, or where they are not ``exact`` and true ones may be smaller.
    """
    kept = counts if cut is None else np.minimum(counts, cut)
    most = int(kept.max())
    ragged = [COUNTS] if not exact or kept.min() < most else []
    return {FEATURES: features(most, size)} | {name: beside(name, most) for name in
                                               (*others, *ragged)}  # fmt: skip


def fill(found: Sequence[Found], arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Stack several images to [k, ...]; features as float32, padding 0 (labels -1)."""
    filled = {}
    for name, array in arrays.items():
        if name == COUNTS:
            filled[name] = np.asarray([len(one[FEATURES]) for one in found], array.dtype)
            continue
        dtype = np.dtype(np.float32) if name == FEATURES else array.dtype
        filling = KINDS[name].filling if name in KINDS else 0
        values = np.full((len(found), *array.shape), filling, dtype)
        with np.errstate(over="ignore"):  # infinity, which is refused with the file
            for row, one in zip(values, found, strict=True):
                row[: len(one[name])] = one[name]
        filled[name] = values
    return filled


def fitting(
    found: Found, arrays: Mapping[str, Array], cut: int | None, where: str
) -> dict[str, np.ndarray]:
    """The planned arrays of an image, its first ``cut`` regions.

    Raises:
        UserError: it has no boxes or labels where others do, other features, or other regions than
            it was planned with.
    """
    most, size = arrays[FEATURES].shape
    values = found[FEATURES]
    if values.shape[1] != size:
        raise UserError(
            f"{where} holds features of {values.shape[1]} numbers where the first has {size}: "
            "extract all alike."
        )
    lacking = next((name for name in arrays if name not in found and name != COUNTS), None)
    if lacking is not None:
        advice = "give files of one extraction"
        if lacking == BOXES:
            advice = "extract it again, or leave all out with --no-boxes"
        raise UserError(f"{where} holds no {lacking} where others do: {advice}.")
    kept = {name: found[name][:cut] for name in arrays if name != COUNTS}
    count = len(kept[FEATURES])
    if count > most or (count < most and COUNTS not in arrays):
        raise UserError(
            f"{where} holds {count} regions or frames where {most} were planned: it has changed "
            "meanwhile, so start again."
        )
    return kept
