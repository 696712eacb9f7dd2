"""One ``.npy`` of features with a file of ids, a line a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.data.boxes import read_boxes
from hmgr_jax.data.captions import read_lines
from hmgr_jax.data.regions import open_features
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity


class NpyStore:
    """``FILE.npy`` [rows, R, D] with ``ids``; boxes in ``FILE_boxes.npy`` [rows, R, 4] in 0..1.

    ``{name}_ims.npy`` and ``_feat.npy`` have ``{name}_boxes.npy`` and, by default, ``_ids.txt``.
    """

    files = None

    def __init__(self, path: Path, ids: Path | None, *, with_boxes: bool = True) -> None:
        self.path = path
        self.rows = open_features(path)
        self.shape = (self.rows.shape[1], self.rows.shape[2])
        self.bytes_an_image = self.rows.row_bytes
        stem = path.stem.removesuffix("_ims").removesuffix("_feat")
        self.ids_file = ids or path.with_name(f"{stem}_ids.txt")
        self.boxes_file = path.with_name(f"{stem}_boxes.npy")
        self.has_boxes = with_boxes and self.boxes_file.is_file()
        self._row_of = self._read_ids()

    @property
    def ids(self) -> Mapping[str, int]:
        """{id: row}."""
        return self._row_of

    def _read_ids(self) -> dict[str, int]:
        if not self.ids_file.is_file():
            raise UserError(
                f"{self.ids_file} is missing, so nobody knows which row of {self.path} is which "
                "image: give --ids a file with an id a row."
            )
        lines = read_lines(self.ids_file)
        if len(lines) != len(self.rows):
            raise UserError(
                f"{self.ids_file} has {len(lines)} lines but {self.path} has {len(self.rows)} "
                "rows: there must be one id a row."
            )
        row_of: dict[str, int] = {}
        for row, name in enumerate(lines):
            if row_of.setdefault(name, row) != row:
                raise UserError(
                    f"{self.ids_file}:{row + 1} repeats {name} of line {row_of[name] + 1}: every "
                    "image has one row, so drop the repeats first (hmgr_jax.prepare scan does)."
                )
        return row_of

    def read(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Features, and boxes where there are any, of ``ids``."""
        rows = np.asarray([self._row_of[name] for name in ids], np.int64)
        found = {FEATURES: self.rows.gather(rows)}
        if self.has_boxes:
            shape = (len(self.rows), self.shape[0])
            found[BOXES] = read_boxes([self.boxes_file], rows, shape)
        return found

    def where(self, name: str) -> str:
        """File and row."""
        return f"{self.path}, row {self._row_of[name]} ({name}),"

    def identity(self, ids: Sequence[str]) -> str:
        """Of all files of the store."""
        more = [self.boxes_file] if self.has_boxes else []
        return identity([self.path, self.ids_file, *more])
