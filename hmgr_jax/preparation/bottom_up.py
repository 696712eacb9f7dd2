"""Bottom-up attention's TSV files: scan them once for their ids, then decode them."""

from __future__ import annotations

import base64
import binascii
import gzip
import itertools
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from hmgr_jax.data.regions.row_arrays import clip_boxes, convert_array
from hmgr_jax.data.text.captioned import Captioned
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES, Array, Chunk, Plan, RowSource, identity
from hmgr_jax.preparation.stores import fill, fitting, join, plan_arrays, plan_splits
from hmgr_jax.progress import Progress

Place = tuple[str, int]
"""A split, and a row of it."""


class _Seen(NamedTuple):
    """An image as the first scan finds it."""

    where: str
    checksum: int
    boxes: int
    problem: UserError | None
    """Of its line, or of another line with its id; raised only if the image is wanted."""


@dataclass(frozen=True)
class TsvSource(RowSource):
    """The images of ``places`` ({id in the TSV: split and row}), in the order of the files."""

    files: Sequence[Path]
    places: Mapping[str, Place]
    arrays: Mapping[str, Array]
    cut: int | None
    """The number of boxes kept per image, the first ones."""

    def chunks(self, todo: Mapping[str, np.ndarray]) -> Iterator[Chunk]:
        """One chunk per image; lines of other images are not decoded."""
        left = {split: rows.copy() for split, rows in todo.items()}
        for line in itertools.chain.from_iterable(map(read_lines, self.files)):
            place = self.places.get(line.id)
            if place is not None and left[place[0]][place[1]]:
                split, row = place
                left[split][row] = False
                size = self.arrays[FEATURES].shape[1]
                found = fitting(decode(line, size, self.cut), self.arrays, None, line.where)
                filled = fill([found], self.arrays)
                yield Chunk(split, np.asarray([row]), filled, _name_of(line))


def plan_bottom_up(
    splits: Mapping[str, Sequence[Captioned]],
    files: Sequence[Path],
    *,
    kind: str | None,
    regions: int | None,
    about: Mapping[str, Any],
) -> Plan:
    """Join images with lines of ``files`` by id, at most ``regions`` boxes each.

    Raises `UserError` for an image without a line, or with a line that is malformed or occurs again
    with other values; lines of other images do not matter.
    """
    seen = _index(files)
    problems = [one.problem for one in seen.values() if one.problem is not None]
    try:
        names = join(splits, seen, ", ".join(map(str, files)), kind)
    except UserError:
        if problems:  # a malformed line may be that of the missing image
            raise problems[0] from None
        raise
    places = {
        name: (split, row) for split, found in names.items() for row, name in enumerate(found)
    }
    for name in places:
        if (problem := seen[name].problem) is not None:
            raise problem
    lines = itertools.chain.from_iterable(map(read_lines, files))
    sample = decode(next(line for line in lines if line.id in places))
    others = [name for name in sample if name != FEATURES]
    counts = np.asarray([seen[name].boxes for name in places])
    arrays = plan_arrays(sample[FEATURES].shape[1], others, counts, regions)
    about = {**about, "features": identity(files)}
    source = TsvSource(files, places, arrays, regions)
    return Plan(plan_splits(splits, arrays), source, about)


def _index(files: Sequence[Path]) -> dict[str, _Seen]:
    """The entry of every id; a line that occurs twice counts once."""
    seen: dict[str, _Seen] = {}
    size = sum(path.stat().st_size for path in files)
    with Progress(size, "bytes", title="checking", stream=sys.stderr) as bar:
        for path in files:
            position = 0
            for line in read_lines(path):
                boxes, problem = 0, None
                try:
                    boxes = line.whole("num_boxes")
                except UserError as error:
                    problem = error
                here = _Seen(line.where, line.checksum, boxes, problem)
                former = seen.setdefault(line.id, here)
                if former.checksum != here.checksum and former.problem is None:
                    problem = UserError(
                        f"{line.where} is image {line.id} again with other values than "
                        f"{former.where}: remove one of the two."
                    )
                    seen[line.id] = former._replace(problem=problem)
                bar.advance(line.position - position)
                position = line.position
    if not seen:
        raise UserError(f"{files[0]} holds no images: give a TSV of bottom-up attention.")
    return seen


def _name_of(line: Line) -> Callable[[int], str]:
    return lambda _: line.where


SHORT = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
OBJECTS = ("objects_id", "objects_conf", "attrs_id", "attrs_conf")
LONG = (*SHORT, *OBJECTS)
LXMERT = ("image_id", "image_h", "image_w", *OBJECTS, "num_boxes", "boxes", "features")
LABELS = {
    "objects_id": ("labels", "i"),
    "objects_conf": ("scores", "f"),
    "attrs_id": ("attributes", "i"),
    "attrs_conf": ("attribute_scores", "f"),
}
"""{column: (ending of the file that is made, kind of number in the TSV)}."""
BYTES = {"f": (4, 8, 2), "i": (8, 4, 2)}
"""Bytes of a number by its kind, the most common first."""
PLAUSIBLE, MOST_STRANGE = (1e-6, 1e4), 0.01
"""Magnitudes of features, and the share of other ones above which they are of another type."""
LARGEST = 10**7
"""Most boxes, and largest width or height of an image."""
LONGEST = 64 << 20
"""Longest line in bytes, so that a file without line ends does not fill the memory."""


class Line(NamedTuple):
    """The line of one image, not decoded yet."""

    where: str
    cells: list[bytes]
    checksum: int
    position: int
    """Bytes of the file on disk read so far."""

    @property
    def id(self) -> str:
        """The image's id in the file."""
        return self.cells[0].decode("utf-8", "replace").strip()

    @property
    def columns(self) -> tuple[str, ...]:
        """The column names. LXMERT's order is recognised by the short cell of the box count."""
        if len(self.cells) == len(SHORT):
            return SHORT
        if len(self.cells) != len(LONG):
            raise UserError(
                f"{self.where} has {len(self.cells)} columns where {len(SHORT)} "
                f"({', '.join(SHORT)}) or {len(LONG)} (objects and attributes too) were expected: "
                "give a TSV of bottom-up attention."
            )
        return LONG if self.cells[3].strip().isdigit() else LXMERT

    def whole(self, name: str) -> int:
        """Read a cell as a positive number."""
        cell = self.cells[self.columns.index(name)]
        try:
            value = int(float(cell))
        except (ValueError, OverflowError):
            value = 0
        if not 1 <= value <= LARGEST:
            raise UserError(
                f"{self.where} has {cell[:20].decode('utf-8', 'replace')!r} as {name} where a "
                f"positive number was expected: the columns are {', '.join(self.columns)}."
            )
        return value


def read_lines(path: Path) -> Iterator[Line]:
    """Iterate over the lines of a TSV, gzipped or not, without a header line."""
    number = 0
    try:
        with path.open("rb", buffering=1 << 20) as raw:
            file = _unpacked(raw, path)
            while text := file.readline(LONGEST):
                number += 1
                yield from _line(text, f"{path}:{number}", number, raw.tell())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path} ends or breaks after line {number} ({error}): it was not copied whole, so "
            "copy it again."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the file.") from None


def _unpacked(raw: IO[bytes], path: Path) -> IO[bytes] | gzip.GzipFile:
    """Open the file, decompressing it if its content is gzip, whatever its name."""
    start = raw.read(2)
    raw.seek(0)
    if start == b"PK":
        raise UserError(f"{path} is a zip archive: unpack it and give the .tsv files in it.")
    return gzip.GzipFile(fileobj=raw) if start == b"\x1f\x8b" else raw


def _line(text: bytes, where: str, number: int, position: int) -> Iterator[Line]:
    if len(text) >= LONGEST:
        raise UserError(f"{where} is longer than {LONGEST >> 20} MiB: this is no TSV of features.")
    cells = text.rstrip(b"\r\n").split(b"\t")
    if not text.strip() or (number == 1 and cells[-1] in (b"features", b"attrs_conf")):
        return
    yield Line(where, cells, zlib.crc32(text), position)


def decode(
    line: Line, size: int | None = None, regions: int | None = None
) -> dict[str, np.ndarray]:
    """``{"ims": [R, D], "boxes": float32 [R, 4] in 0..1, "labels": ...}`` of an image.

    ``size`` is D, None if it is not known yet; ``regions`` is the number of boxes kept, the first
    ones; None keeps all. The type of numbers follows from their bytes, and without ``size`` from
    the values.
    """
    cells = dict(zip(line.columns, line.cells, strict=True))
    count, kept = line.whole("num_boxes"), slice(regions)
    found = {FEATURES: _values(cells, "features", "f", size, count, line)[kept]}
    boxes = _values(cells, "boxes", "f", 4, count, line)
    pixels = np.asarray([line.whole("image_w"), line.whole("image_h")] * 2, np.float64)
    relative = (boxes / pixels[None])[None]
    found[BOXES] = clip_boxes(relative, lambda _: f"{line.where} holds")[0][kept]
    for name, (end, kind) in LABELS.items():
        if name in cells:
            values = _values(cells, name, kind, 1, count, line)[kept, 0]
            found[end] = convert_array(end, values[None], lambda _: f"{line.where} holds")[0]
    return found


def _values(
    cells: dict[str, bytes], name: str, kind: str, size: int | None, count: int, line: Line
) -> np.ndarray:
    """Decode a base64 cell to [count, size]."""
    try:
        raw = base64.b64decode(cells[name], validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(
            f"{line.where} holds {name} that is not base64 ({error}): copy the file again."
        ) from None
    for width in BYTES[kind]:
        if not raw or len(raw) % (count * width) or size not in (None, len(raw) // count // width):
            continue
        values = np.frombuffer(raw, f"<{kind}{width}").reshape(count, -1)
        if size is not None or _plausible(values):
            return values
    each = "the numbers of a box" if size is None else f"{size} numbers a box"
    raise UserError(
        f"{line.where} holds {len(raw)} bytes of {name} for {count} boxes, which are not {each} of "
        f"{', '.join(map(str, sorted(BYTES[kind])))} bytes: the line is cut short or of another "
        "extraction, so copy the file again."
    )


def _plausible(values: np.ndarray) -> bool:
    """Are nearly all ``values`` zero or of a common magnitude? Numbers of another type are not."""
    some = np.abs(values[values != 0])
    with np.errstate(invalid="ignore"):
        common = (some >= PLAUSIBLE[0]) & (some <= PLAUSIBLE[1])
    return bool((~common).sum() <= MOST_STRANGE * common.size)
