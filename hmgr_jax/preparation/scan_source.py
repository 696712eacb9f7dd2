"""SCAN, VSRN and IMRAM folders: check them, drop repeated rows, convert to float16.

Word graphs are copied: captions keep their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.regions.regions import open_features
from hmgr_jax.data.regions.row_arrays import (
    COUNTS,
    KINDS,
    check_zero_padding,
    read_array,
    read_boxes,
    read_counts,
)
from hmgr_jax.data.regions.scan_files import (
    ScanFiles,
    check_files,
    check_same_files,
    find_split,
    pair_captions,
)
from hmgr_jax.data.text.text_graph import find_word_graphs, read_word_graphs
from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import Rows
from hmgr_jax.preparation.plan import (
    BOXES,
    FEATURES,
    Chunk,
    Plan,
    RowSource,
    SplitPlan,
    beside,
    blocks,
    features,
    identity,
)

NAMES = ("ims", "feat")


@dataclass(frozen=True)
class _Split:
    """One split of the folder, and its kept rows."""

    files: ScanFiles
    rows: Rows
    counts: np.ndarray | None
    """int32 [rows], true regions of each; None for all."""
    kept: np.ndarray
    """int [images], the first row of each image."""
    ends: np.ndarray
    """int [images], one past its last row."""


class ScanSource(RowSource):
    """The rows of a folder; every copy of an image is compared with its first row."""

    def __init__(self, splits: Mapping[str, _Split]) -> None:
        self.splits = splits

    def chunks(self, todo: Mapping[str, np.ndarray]) -> Iterator[Chunk]:
        """Images in the order of the files."""
        for name, found in self.splits.items():
            copies = int((found.ends - found.kept).max())
            for images in blocks(np.flatnonzero(todo[name]), found.rows.row_bytes * copies):
                yield self._read(name, found, images)

    def _read(self, name: str, found: _Split, images: np.ndarray) -> Chunk:
        kept, copies = found.kept[images], (found.ends - found.kept)[images]
        first = np.cumsum(copies) - copies
        rows = np.repeat(kept - first, copies) + np.arange(copies.sum())
        values = found.rows.gather(rows)
        if found.counts is not None:
            check_zero_padding(
                values,
                found.counts[rows],
                lambda i: f"{found.rows.path} holds in row {int(rows[i])}",
            )
        if len(rows) > len(images):
            _check_copies(found, values, rows, np.repeat(first, copies))
            values = values[first]
        arrays = {FEATURES: values, **_read_beside(found, kept)}
        return Chunk(name, images, arrays, lambda i: f"{found.rows.path}, row {int(kept[i])},")


def _read_beside(found: _Split, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Counts, boxes, labels and so on of the ``kept`` rows, if present."""
    shape = (len(found.rows), found.rows.shape[1])
    arrays: dict[str, np.ndarray] = {}
    if found.files.boxes:
        arrays[BOXES] = read_boxes(found.files.boxes, kept, shape, found.counts)
    if found.counts is not None:
        arrays[COUNTS] = found.counts[kept]
    for name, path in found.files.arrays.items():
        if name != COUNTS:
            arrays[name] = read_array(name, path, kept, shape)
    return arrays


def plan_scan(
    root: Path, splits: Sequence[str] | None = None, captions_per_image: int | None = None
) -> Plan:
    """Read captions and ids of a folder, check them against the features, and plan the rest.

    ``splits`` are those of the folder by default; ``captions_per_image`` is that of
    `hmgr_jax.data.regions.scan.open_scan`. Rows are counted from 0 in messages.
    """
    names = list(splits) if splits else _names(root)
    check_files(root, names)
    found = {name: _open(root, name, captions_per_image) for name in names}
    _check_equal_shapes(found)
    graphs = find_word_graphs({name: split.files.captions for name, split in found.items()})
    plans = {
        name: _plan(split, captions_per_image, graphs.get(name)) for name, split in found.items()
    }
    paths = [path for split in found.values() for path in split.files.paths()]
    paths += graphs.values()
    about: dict[str, Any] = {
        "command": "scan",
        "options": {"splits": names, "captions_per_image": captions_per_image},
        "sources": identity(paths),
    }
    return Plan(plans, ScanSource(found), about)


def _names(root: Path) -> list[str]:
    """All splits with features or captions in the folder, train first."""
    ends = [*(f"_{name}.npy" for name in NAMES), "_caps.txt"]
    paths = sorted(root.iterdir()) if root.is_dir() else []
    found = {path.name.removesuffix(end) for path in paths for end in ends if path.match(f"*{end}")}
    order = {"train": 0, "dev": 1, "val": 1}
    return sorted(found, key=lambda name: (order.get(name, 2), name)) or ["train", "dev", "test"]


def _open(root: Path, name: str, per_image: int | None) -> _Split:
    files = find_split(root, name)
    rows = open_features(files.features)
    counts = read_counts(files.counts, (rows.shape[0], rows.shape[1]))
    kept, _ = pair_captions(files, rows, per_image)
    return _Split(files, rows, counts, kept, np.append(kept[1:], len(rows)))


def _plan(split: _Split, per_image: int | None, graphs: Path | None) -> SplitPlan:
    _, images = pair_captions(split.files, split.rows, per_image)
    captions: list[list[str]] = [[] for _ in split.kept]
    for image, sentence in zip(images.tolist(), split.files.sentences, strict=True):
        captions[image].append(sentence)
    regions, size = split.rows.shape[1:]
    arrays = {FEATURES: features(regions, size)}
    for name in _read_beside(split, split.kept[:1]):  # which refuses files that do not fit
        arrays[name] = beside(name, regions)
    ids = split.files.ids
    names = [ids[row] if ids else str(row) for row in split.kept.tolist()]
    if graphs:
        read_word_graphs(graphs, split.files.sentences)  # which refuses what does not fit
    return SplitPlan(names, captions, arrays, graphs)


def _check_equal_shapes(found: Mapping[str, _Split]) -> None:
    """Check that the splits can be trained together, before the conversion."""
    one, *others = found.values()
    for other in others:
        if one.rows.shape[2] != other.rows.shape[2]:
            raise UserError(
                f"{one.rows.path} has {one.rows.shape[2]} features a region but {other.rows.path} "
                f"has {other.rows.shape[2]}: extract both alike."
            )
    check_same_files({name: split.files for name, split in found.items()}, (BOXES, *KINDS))


def _check_copies(found: _Split, values: np.ndarray, rows: np.ndarray, first: np.ndarray) -> None:
    """Check that rows of one id have equal features; otherwise ids and rows are misaligned."""
    raw = values.reshape(len(values), -1).view(np.uint8)
    counts = np.zeros(len(rows)) if found.counts is None else found.counts[rows]
    for i in np.flatnonzero(first != np.arange(len(rows))).tolist():
        if counts[i] != counts[first[i]] or not np.array_equal(raw[i], raw[first[i]]):
            name = found.files.ids[int(rows[i])] if found.files.ids else "the same image"
            raise UserError(
                f"{found.rows.path} holds in row {int(rows[i])} other features than in row "
                f"{int(rows[first[i]])} though both are {name}: ids and features are out of step, "
                "so put the right files together."
            )
