"""Bottom-up attention's TSV files: looked through once for their ids, then decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.preparation.captioned import Captioned
from hmgr_jax.preparation.joining import join
from hmgr_jax.preparation.plan import FEATURES, Array, Chunk, Plan, SplitPlan, features, identity
from hmgr_jax.preparation.progress import Bar
from hmgr_jax.preparation.tsv_lines import Line, decode, read_lines

Place = tuple[str, int]
"""A split, and a row of it."""


class _Seen(NamedTuple):
    """What the first look says of an image."""

    where: str
    checksum: int
    boxes: int


@dataclass(frozen=True)
class TsvSource:
    """The images of ``places`` ({id of the TSV: split and row}), in the order of the files."""

    files: Sequence[Path]
    places: Mapping[str, Place]
    regions: int | None
    arrays: Mapping[str, Array]

    def chunks(self, todo: Mapping[str, np.ndarray]) -> Iterator[Chunk]:
        """A chunk an image; lines of images that are not wanted are not decoded."""
        left = {split: rows.copy() for split, rows in todo.items()}
        for line in _lines(self.files):
            place = self.places.get(line.id)
            if place is not None and left[place[0]][place[1]]:
                split, row = place
                left[split][row] = False
                yield Chunk(split, np.asarray([row]), self._read(line), _namer(line.where))

    def changed(self, since: int) -> dict[str, np.ndarray]:
        """Nothing: another file is another preparation."""
        return {}

    def _read(self, line: Line) -> dict[str, np.ndarray]:
        found = decode(line, self.regions)
        for end, array in self.arrays.items():
            if end not in found or found[end].shape != array.shape:
                shape = found[end].shape if end in found else "no"
                raise UserError(
                    f"{line.where} holds {shape} {'features' if end == FEATURES else end} where "
                    f"the first line holds {array.shape}: give files of one extraction."
                )
        return {end: found[end][None] for end in self.arrays}


def plan_bottom_up(
    splits: Mapping[str, Sequence[Captioned]],
    files: Sequence[Path],
    *,
    kind: str | None,
    regions: int | None,
    about: Mapping[str, Any],
) -> Plan:
    """Join the images of ``splits`` with the lines of ``files`` by id.

    Raises:
        UserError: the first image that no line has, lines of one id that differ, or lines of
            different numbers of boxes without ``regions``.
    """
    seen, first = _index(files)
    names = join(splits, seen, ", ".join(map(str, files)), kind)
    places = {
        name: (split, row) for split, found in names.items() for row, name in enumerate(found)
    }
    _demand_boxes([seen[name] for name in places], regions)
    arrays = _arrays(decode(first, regions))
    plans = {
        name: SplitPlan([image.id for image in found], [image.captions for image in found], arrays)
        for name, found in splits.items()
    }
    about = {**about, "features": identity(files)}
    return Plan(plans, TsvSource(files, places, regions, arrays), about)


def _demand_boxes(found: Sequence[_Seen], regions: int | None) -> None:
    """Every image must have the boxes that are kept of it."""
    least, most = (pick(found, key=lambda seen: seen.boxes) for pick in (min, max))
    if regions is None and least.boxes < most.boxes:
        raise UserError(
            f"{least.where} has {least.boxes} boxes and {most.where} {most.boxes} where all images "
            f"need the same number: give --regions {least.boxes} or fewer, which keeps the first."
        )
    if regions is not None and least.boxes < regions:
        raise UserError(
            f"{least.where} has {least.boxes} boxes where --regions asks for {regions}: ask for "
            f"{least.boxes} or fewer."
        )


def _arrays(found: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """What is written of an image like ``found``."""
    regions, size = found[FEATURES].shape
    arrays = {FEATURES: features(regions, size)}
    for end, values in found.items():
        if end != FEATURES:
            kind = np.dtype(np.int32) if values.dtype.kind == "i" else values.dtype
            arrays[end] = Array(values.shape, kind)
    return arrays


def _lines(files: Sequence[Path]) -> Iterator[Line]:
    for path in files:
        yield from read_lines(path)


def _index(files: Sequence[Path]) -> tuple[dict[str, _Seen], Line]:
    """What is known of every id, and the first line; the same line twice counts once."""
    seen: dict[str, _Seen] = {}
    first: Line | None = None
    with Bar("looking through, bytes", sum(path.stat().st_size for path in files)) as bar:
        for path in files:
            position = 0
            for line in read_lines(path):
                first = first or line
                here = _Seen(line.where, line.checksum, line.whole("num_boxes"))
                former = seen.setdefault(line.id, here)
                if former.checksum != here.checksum:
                    raise UserError(
                        f"{line.where} is image {line.id} again with other values than "
                        f"{former.where}: remove one of the two."
                    )
                bar.advance(line.position - position)
                position = line.position
    if first is None:
        raise UserError(f"{files[0]} holds no images: give a TSV of bottom-up attention.")
    return seen, first


def _namer(where: str) -> Callable[[int], str]:
    return lambda _: where
