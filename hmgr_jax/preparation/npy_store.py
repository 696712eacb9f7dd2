"""One ``.npy`` of features with a file of ids, a line a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.data.regions.regions import open_features
from hmgr_jax.data.regions.row_arrays import check_zero_padding, read_boxes, read_counts
from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES, identity


class NpyStore:
    """``FILE.npy`` [rows, R, D] with ``ids``; boxes in ``FILE_boxes.npy`` [rows, R, 4] in 0..1, and
    numbers of true regions in ``FILE_counts.npy`` [rows].

    ``{name}_ims.npy`` and ``_feat.npy`` have ``{name}_boxes.npy`` and, by default, ``_ids.txt``.
    """

    files = None
    exact = True
    slow = False

    def __init__(self, path: Path, ids: Path | None, *, with_boxes: bool = True) -> None:
        self.path = path
        self.rows = open_features(path)
        self.size = self.rows.shape[2]
        stem = path.stem.removesuffix("_ims").removesuffix("_feat")
        self.ids_file = ids or path.with_name(f"{stem}_ids.txt")
        self.boxes_file = path.with_name(f"{stem}_boxes.npy")
        self.has_boxes = with_boxes and self.boxes_file.is_file()
        self._row_of = self._read_ids()
        counts, shape = path.with_name(f"{stem}_counts.npy"), self.rows.shape
        self.counts_file = counts if counts.is_file() else None
        self._counts = read_counts(self.counts_file, (shape[0], shape[1]))

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

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """As the file of counts says, else all of the row."""
        if self._counts is None:
            return np.full(len(ids), self.rows.shape[1])
        return self._counts[[self._row_of[name] for name in ids]]

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features, and boxes where there are any, of one image."""
        row = np.asarray([self._row_of[name]])
        found = {FEATURES: self.rows.gather(row)}
        if self.has_boxes:
            shape = (len(self.rows), self.rows.shape[1])
            found[BOXES] = read_boxes([self.boxes_file], row, shape, self._counts)
        if self._counts is not None:
            where = f"{self.where(name)} holds"
            check_zero_padding(found[FEATURES], self._counts[row], lambda _: where)
        count = int(self.regions([name])[0])
        return {end: values[0, :count] for end, values in found.items()}

    def where(self, name: str) -> str:
        """File and row."""
        return f"{self.path}, row {self._row_of[name]} ({name}),"

    def identity(self, ids: Sequence[str]) -> str:
        """Of all files of the store."""
        more = [self.boxes_file] if self.has_boxes else []
        more += [self.counts_file] if self.counts_file else []
        return identity([self.path, self.ids_file, *more])
