"""Bottom-up attention's TSV files: looked through once for their ids, then decoded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.data.text.captioned import Captioned
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.filling import fill, fitting, plan_arrays
from hmgr_jax.preparation.joining import join
from hmgr_jax.preparation.plan import FEATURES, Array, Chunk, Plan, SplitPlan, identity
from hmgr_jax.preparation.tsv_lines import Line, decode, read_lines
from hmgr_jax.progress import Progress

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
    arrays: Mapping[str, Array]
    cut: int | None
    """So many boxes are kept of an image, the first."""

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
        found = fitting(decode(line, self.cut), self.arrays, None, line.where)
        return fill([found], self.arrays)


def plan_bottom_up(
    splits: Mapping[str, Sequence[Captioned]],
    files: Sequence[Path],
    *,
    kind: str | None,
    regions: int | None,
    about: Mapping[str, Any],
) -> Plan:
    """Join the images of ``splits`` with the lines of ``files`` by id.

    ``regions`` is the most boxes that are kept of an image, the first; None keeps all.

    Raises:
        UserError: the first image that no line has, or lines of one id that differ.
    """
    seen, first = _index(files)
    names = join(splits, seen, ", ".join(map(str, files)), kind)
    places = {
        name: (split, row) for split, found in names.items() for row, name in enumerate(found)
    }
    sample = decode(first)
    others = [name for name in sample if name != FEATURES]
    counts = np.asarray([seen[name].boxes for name in places])
    arrays = plan_arrays(sample[FEATURES].shape[1], others, counts, regions)
    plans = {
        name: SplitPlan([image.id for image in found], [image.captions for image in found], arrays)
        for name, found in splits.items()
    }
    about = {**about, "features": identity(files)}
    return Plan(plans, TsvSource(files, places, arrays, regions), about)


def _lines(files: Sequence[Path]) -> Iterator[Line]:
    for path in files:
        yield from read_lines(path)


def _index(files: Sequence[Path]) -> tuple[dict[str, _Seen], Line]:
    """What is known of every id, and the first line; the same line twice counts once."""
    seen: dict[str, _Seen] = {}
    first: Line | None = None
    size = sum(path.stat().st_size for path in files)
    with Progress(size, "bytes", title="checking", stream=sys.stderr) as bar:
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
