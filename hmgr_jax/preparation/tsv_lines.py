"""The lines of bottom-up attention's TSV files: columns, base64, sizes."""

from __future__ import annotations

import base64
import binascii
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from hmgr_jax.data.regions.row_arrays import clip_boxes, convert_array
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES

SHORT = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
OBJECTS = ("objects_id", "objects_conf", "attrs_id", "attrs_conf")
LONG = (*SHORT, *OBJECTS)
LXMERT = ("image_id", "image_h", "image_w", *OBJECTS, "num_boxes", "boxes", "features")
LABELS: dict[str, tuple[str, np.dtype]] = {
    "objects_id": ("labels", np.dtype(np.int64)),
    "objects_conf": ("scores", np.dtype(np.float32)),
    "attrs_id": ("attributes", np.dtype(np.int64)),
    "attrs_conf": ("attribute_scores", np.dtype(np.float32)),
}
"""{column: (ending of the file that is made, type in the TSV)}."""
LONGEST = 64 << 20
"""Bytes of a line; what has none shorter is no such file, and must not fill the memory."""


class Line(NamedTuple):
    """One image, not decoded yet."""

    where: str
    cells: list[bytes]
    checksum: int
    position: int
    """Bytes of the file (as it lies on disk) read so far."""

    @property
    def id(self) -> str:
        """The image's id, as the file has it."""
        return self.cells[0].decode("utf-8", "replace").strip()

    @property
    def columns(self) -> tuple[str, ...]:
        """LXMERT has the objects in the middle; the number of boxes is the only short cell."""
        if len(self.cells) == len(SHORT):
            return SHORT
        return LONG if self.cells[3].strip().isdigit() else LXMERT

    def whole(self, name: str) -> int:
        """A cell that is a positive number."""
        cell = self.cells[self.columns.index(name)]
        try:
            value = int(float(cell))
        except (ValueError, OverflowError):
            value = 0
        if value < 1:
            raise UserError(
                f"{self.where} has {cell[:20].decode('utf-8', 'replace')!r} as {name} where a "
                f"positive number was expected: the columns are {', '.join(self.columns)}."
            )
        return value


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a TSV or of a gzipped one; a first line of names is passed over.

    Raises:
        UserError: a line too long or of another number of columns, or a file cut short.
    """
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
    """The file itself, or what is in it if it is gzipped, whatever its name."""
    start = raw.read(2)
    raw.seek(0)
    if start == b"PK":
        raise UserError(f"{path} is a zip archive: unpack it and give the .tsv files in it.")
    return gzip.GzipFile(fileobj=raw) if start == b"\x1f\x8b" else raw


def _line(text: bytes, where: str, number: int, position: int) -> Iterator[Line]:
    if len(text) >= LONGEST:
        raise UserError(f"{where} is longer than {LONGEST >> 20} MiB: this is no TSV of features.")
    cells = text.rstrip(b"\r\n").split(b"\t")
    if number == 1 and cells[-1] in (b"features", b"attrs_conf"):
        return
    if len(cells) not in (len(SHORT), len(LONG)):
        raise UserError(
            f"{where} has {len(cells)} columns where {len(SHORT)} ({', '.join(SHORT)}) or "
            f"{len(LONG)} (objects and attributes too) were expected: give a TSV of bottom-up "
            "attention."
        )
    yield Line(where, cells, zlib.crc32(text), position)


def decode(line: Line, regions: int | None = None) -> dict[str, np.ndarray]:
    """``{"ims": float32 [R, D], "boxes": float32 [R, 4] in 0..1, "labels": ...}`` of an image.

    ``regions`` keeps so many boxes, the first.

    Raises:
        UserError: a cell that is no base64 or holds another number of values, or bad boxes.
    """
    cells = dict(zip(line.columns, line.cells, strict=True))
    count, kept = line.whole("num_boxes"), slice(regions)
    found = {FEATURES: _values(cells, "features", np.dtype(np.float32), count, line)[kept]}
    boxes = _values(cells, "boxes", np.dtype(np.float32), count, line)
    if boxes.shape[1] != 4:
        raise UserError(
            f"{line.where} holds boxes of {boxes.shape[1]} numbers where x1, y1, x2, y2 were "
            "expected: copy the file again."
        )
    size = np.asarray([line.whole("image_w"), line.whole("image_h")] * 2, np.float64)
    found[BOXES] = clip_boxes((boxes / size[None])[None], lambda _: f"{line.where} holds")[0][kept]
    for name, (end, dtype) in LABELS.items():
        if name in cells:
            values = _values(cells, name, dtype, count, line)[kept, 0]
            found[end] = convert_array(end, values[None], lambda _: f"{line.where} holds")[0]
    return found


def _values(
    cells: dict[str, bytes], name: str, dtype: np.dtype, count: int, line: Line
) -> np.ndarray:
    """[count, D] of a base64 cell."""
    try:
        raw = base64.b64decode(cells[name], validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(
            f"{line.where} holds {name} that are no base64 ({error}): copy the file again."
        ) from None
    size, rest = divmod(len(raw), count * dtype.itemsize)
    if rest or not size:
        raise UserError(
            f"{line.where} holds {len(raw)} bytes of {name} for {count} boxes, which are no whole "
            f"{dtype} numbers a box: the line is cut short, so copy the file again."
        )
    return np.frombuffer(raw, dtype).reshape(count, size)
