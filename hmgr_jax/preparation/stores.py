"""Features with random access by id, and the rows of a plan that come from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.regions.row_arrays import COUNTS, KINDS
from hmgr_jax.data.text.captioned import Captioned
from hmgr_jax.errors import UserError
from hmgr_jax.files.walk import one_name
from hmgr_jax.preparation.plan import (
    BOXES,
    CHUNK_BYTES,
    FEATURES,
    Array,
    Chunk,
    Plan,
    RowSource,
    SplitPlan,
    beside,
    blocks,
    features,
    identity,
)


class Store:
    """Features of images or videos, [R, D] each, perhaps with boxes [R, 4] in 0..1.

    The default methods are those of one file per image.
    """

    path: Path
    size: int
    """D, the same for all."""
    has_boxes: bool = False
    exact: bool = True
    """Whether `regions` is exact, and not only an upper bound."""
    slow: bool = False
    """Whether reading takes seconds, so that rows are written in small chunks."""
    files: Mapping[str, Path] | None = None
    """{id: file} if every image has its own file."""
    ids: Mapping[str, Any]
    """{id: key of its features}; two ids may share a key."""

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """R of each, int [k], without reading the features."""
        raise NotImplementedError

    def read(self, name: str) -> dict[str, np.ndarray]:
        """``{"ims": [R, D], "boxes": float32 [R, 4]?}`` of one image."""
        raise NotImplementedError

    def stream(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """`read` of each, in order; a store may work ahead."""
        return map(self.read, names)

    def begin(self, folder: Path, train: Sequence[str]) -> list[str]:
        """Write what features depend on into the ``folder`` in the making; names of its files.

        ``train`` are the ids of the training split.
        """
        return []

    def end(self, folder: Path, names: Mapping[str, Sequence[str]]) -> None:
        """Warn of what the written rows show; ``names`` are the ids of each split, in order."""

    def described(self) -> dict[str, Any]:
        """Further values of the manifest."""
        return {}

    def where(self, name: str) -> str:
        """Name the features of one image in a message."""
        return str(self.ids[name])

    def identity(self, ids: Sequence[str]) -> str:
        """A digest of the files of ``ids``."""
        return identity(self.ids[name] for name in ids)


class StoreSource(RowSource):
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
            missing = np.flatnonzero(todo[split])
            stream = self.store.stream([names[row] for row in missing.tolist()])
            for rows in blocks(missing, row_bytes):
                wanted = [names[row] for row in rows.tolist()]
                found = [
                    fitting(next(stream), self.arrays, self.cut, self.store.where(name))
                    for name in wanted
                ]
                yield Chunk(split, rows, fill(found, self.arrays), self._namer(wanted))

    def changed(self, since: int) -> dict[str, np.ndarray]:
        """Images whose file was changed or added after ``since``, by the change time of the inode.

        Thus a bad file can be replaced without reading the rest again.
        """
        files = self.store.files
        return {
            split: np.asarray([files[name].stat().st_ctime_ns > since for name in names], bool)
            for split, names in self.names.items()
            if files is not None
        }

    def begin(self, folder: Path) -> list[str]:
        """Prepare the store, see `Store.begin`."""
        return self.store.begin(folder, self.names.get("train", ()))

    def end(self, folder: Path) -> None:
        """Finish the store, see `Store.end`."""
        self.store.end(folder, self.names)

    def described(self) -> dict[str, Any]:
        """The description of the store, see `Store.described`."""
        return self.store.described()

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
    plans = plan_splits(splits, arrays)
    source, about = StoreSource(store, names, arrays, regions), dict(about)
    if store.files is not None:
        return Plan(plans, source, about, visual, files=store.identity(used))
    return Plan(plans, source, {**about, "features": store.identity(used)}, visual)


def plan_splits(
    splits: Mapping[str, Sequence[Captioned]], arrays: Mapping[str, Array]
) -> dict[str, SplitPlan]:
    """The plan of every split, with the same arrays."""
    return {
        name: SplitPlan([image.id for image in found], [image.captions for image in found], arrays)
        for name, found in splits.items()
    }


ID_KINDS = ("filename", "stem", "cocoid", "padded", "imgid")


def join(
    splits: Mapping[str, Sequence[Captioned]], have: Mapping[str, Any], place: str, kind: str | None
) -> dict[str, list[str]]:
    """{split: id of the features of each image}; `UserError` if they are missing or ambiguous.

    ``have`` is {id: key of its features}, since two ids may share features; ``place`` names the
    features in messages; ``kind`` is the kind of ids, or None for the kind that fits all images.
    """
    images = [image for found in splits.values() for image in found]
    have, kinds = _Named(have), _kinds(images, kind)
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
    _check_distinct(images, chosen, have)
    return {
        name: [have.own_name(image.names[chosen]) for image in found]
        for name, found in splits.items()
    }


class _Named(Mapping[str, Any]):
    """Features by id, where ids that `one_name` makes equal are the same."""

    def __init__(self, have: Mapping[str, Any]) -> None:
        self._have, self._names = have, {one_name(name): name for name in have}

    def own_name(self, name: str) -> str:
        """The id as the features have it."""
        return name if name in self._have else self._names[one_name(name)]

    def __getitem__(self, name: str) -> Any:
        return self._have[self.own_name(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._have)

    def __len__(self) -> int:
        return len(self._have)


def _kinds(images: Sequence[Captioned], kind: str | None) -> list[str]:
    """The kinds of ids that every image has, or the requested one."""
    kinds = [k for k in ID_KINDS if all(k in image.names for image in images)]
    if kind is None:
        return kinds
    if kind not in kinds:
        raise UserError(f"--key is {kind!r} where the images have {', '.join(kinds)}: choose one.")
    return [kind]


def _check_distinct(images: Sequence[Captioned], kind: str, have: Mapping[str, Any]) -> None:
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

    ``others`` are the arrays beside the features of ``size`` numbers per region. Counts are written
    if they differ, or if they are upper bounds (not ``exact``).
    """
    kept = counts if cut is None else np.minimum(counts, cut)
    most = int(kept.max())
    ragged = [COUNTS] if not exact or kept.min() < most else []
    return {FEATURES: features(most, size), **{k: beside(k, most) for k in (*others, *ragged)}}


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

    Raises `UserError` if arrays are missing or have other sizes than planned.
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
