"""Files of a SCAN folder, and the image of each caption.

SCAN stores train images once, and dev and test images once per caption; `pair_captions`
distinguishes the two.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmgr_jax.data.regions.row_arrays import COUNTS, find_arrays, find_boxes
from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.errors import UserError
from hmgr_jax.files.manifest import MANIFEST, entries
from hmgr_jax.files.npy_rows import Rows

CAPTIONS = "{split}_caps.txt"
"""The file of captions of a split."""
PAIRING = ("ids.txt", "cap_ids.txt", "counts.npy")
"""Files without which a folder is read too, but otherwise."""
SAMPLED = 64
"""Pairs of neighbouring rows that decide whether all are compared."""
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class ScanFiles:
    """Files of one split, with its captions and ids."""

    features: Path | Rows
    captions: Path
    ids_file: Path
    boxes: list[Path]
    arrays: dict[str, Path]
    """{name: file} of `hmgr_jax.data.regions.row_arrays` that exist."""
    sentences: list[str]
    ids: list[str] | None
    caption_ids_file: Path
    caption_ids: list[str] | None

    @property
    def counts(self) -> Path | None:
        """File of the number of true regions of each row, if it exists."""
        return self.arrays.get(COUNTS)

    def beside(self) -> dict[str, Path]:
        """{name: file} of boxes, labels, scores and so on."""
        boxes = {"boxes": self.boxes[0]} if self.boxes else {}
        return boxes | {name: path for name, path in self.arrays.items() if name != COUNTS}

    def paths(self) -> list[Path]:
        """All files of the split."""
        ids = [] if self.ids is None else [self.ids_file]
        caption_ids = [] if self.caption_ids is None else [self.caption_ids_file]
        features = self.features
        rows = [features] if isinstance(features, Path) else features.paths()
        more = [*self.boxes, *self.arrays.values()]
        return [*rows, self.captions, *ids, *caption_ids, *more]


def check_files(root: Path, names: Iterable[str], captions: str = CAPTIONS) -> None:
    """Check that all files exist; one ``UserError`` lists those that are missing."""
    missing, known = [], entries(root)
    for name in names:
        if not any((root / f"{name}_{kind}.npy").is_file() for kind in ("ims", "feat")):
            missing.append(f"{name}_ims.npy (or {name}_feat.npy)")
        if not (root / (texts := captions.replace("{split}", name))).is_file():
            missing.append(texts)
        pairing = [f"{name}_{kind}" for kind in PAIRING] if isinstance(known, dict) else []
        gone = [file for file in pairing if file in known and not (root / file).is_file()]
        missing += [f"{file} (which {MANIFEST} lists)" for file in gone]
    if missing:
        what = "lacks" if root.is_dir() else "is not a folder; it should hold"
        raise UserError(
            f"{root} {what} {', '.join(missing)}: put the files of SCAN's layout there, or give "
            "the folder that holds them."
        )


def find_split(root: Path, name: str, captions: str = CAPTIONS) -> ScanFiles:
    """Locate the files of a split, and read its ids and the captions of a file of that name."""
    features = root / f"{name}_ims.npy"
    if not features.is_file():
        features = root / f"{name}_feat.npy"
    ids_file, texts = root / f"{name}_ids.txt", root / captions.replace("{split}", name)
    caption_ids_file = root / f"{name}_cap_ids.txt"
    return ScanFiles(
        features=features,
        captions=texts,
        ids_file=ids_file,
        boxes=find_boxes(root, name),
        arrays=find_arrays(root, name),
        sentences=read_lines(texts),
        ids=read_lines(ids_file) if ids_file.is_file() else None,
        caption_ids_file=caption_ids_file,
        caption_ids=read_lines(caption_ids_file) if caption_ids_file.is_file() else None,
    )


def check_same_files(splits: Mapping[str, ScanFiles], names: Iterable[str]) -> None:
    """Check that all splits or none have each of ``names`` (boxes, labels and so on).

    Raises:
        UserError: names the first file without a counterpart.
    """
    found = {split: files.beside() for split, files in splits.items()}
    for what in names:
        path = next((files[what] for files in found.values() if what in files), None)
        for lacking, files in found.items():
            if path is not None and what not in files:
                raise UserError(
                    f"{path} has no counterpart for the {lacking} split: give {what} for all "
                    "splits or for none."
                )


def pair_captions(
    files: ScanFiles, features: Rows, per_image: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the feature file to keep, one per image, and the image of every caption (int32).

    Without ids, bit-identical neighbouring rows are one image where at least half are, as in files
    that store every image once per caption.

    Args:
        files: of the split.
        features: the rows of the feature file.
        per_image: captions per image according to the user, or None.

    Raises:
        UserError: counts or ids do not agree, or ids differ where rows are identical.
    """
    rows = len(features)
    if files.ids is not None and len(files.ids) != rows:
        raise UserError(
            f"{files.ids_file} has {len(files.ids)} lines but {files.features} has {rows} rows: "
            "give one id per row."
        )
    if per_image is not None and per_image < 1:
        raise UserError(f"captions_per_image must be at least 1, it is {per_image}: correct it.")
    if files.caption_ids is not None:
        return np.arange(rows), _named(files, files.caption_ids, per_image)
    repeats = _repeats(files, rows, per_image)
    if repeats is None and per_image is None and rows == len(files.sentences):
        repeats = _identical(files, features)
    if repeats is None:
        each = _captions_per_row(files, rows, per_image)
        return np.arange(rows), np.repeat(np.arange(rows, dtype=np.int32), each)
    if len(files.sentences) != rows:
        raise UserError(
            f"{files.captions} has {len(files.sentences)} captions but {files.features} stores "
            f"every image once per caption in {rows} rows: give as many of both."
        )
    kept = np.cumsum(repeats) - repeats
    return kept, np.repeat(np.arange(len(repeats), dtype=np.int32), repeats)


def _named(files: ScanFiles, caption_ids: list[str], per_image: int | None) -> np.ndarray:
    """Image of every caption, as its file of ids names it."""
    at = files.caption_ids_file
    if files.ids is None:
        raise UserError(f"{at} names images but {files.ids_file} is missing: add one id per row.")
    if len(caption_ids) != len(files.sentences):
        raise UserError(
            f"{at} has {len(caption_ids)} lines but {files.captions} has {len(files.sentences)}: "
            "give one id per caption."
        )
    row_of = {name: row for row, name in enumerate(files.ids)}
    if len(row_of) != len(files.ids):
        raise UserError(f"{files.ids_file} repeats ids: with {at} store every image once.")
    images = np.empty(len(caption_ids), np.int32)
    last = -1
    for number, name in enumerate(caption_ids):
        row = row_of.get(name)
        if row is None or row not in (last, last + 1):
            wanted = files.ids[last + 1] if last + 1 < len(files.ids) else files.ids[last]
            raise UserError(
                f"{at}:{number + 1} is {name!r} where the line before or {wanted!r}, the next of "
                f"{files.ids_file}, was expected: order captions by image, at least one each."
            )
        images[number] = last = row
    if last + 1 < len(files.ids):
        raise UserError(f"{at} ends before {files.ids[last + 1]!r}: give every image a caption.")
    counts = np.bincount(images)
    if per_image is not None and (counts != per_image).any():
        wrong = int(np.flatnonzero(counts != per_image)[0])
        raise UserError(
            f"{at} gives {files.ids[wrong]} {counts[wrong]} captions where captions_per_image says "
            f"{per_image}: correct one of the two."
        )
    return images


def _captions_per_row(files: ScanFiles, rows: int, per_image: int | None) -> int:
    """Captions per image if every row is another image."""
    each, rest = divmod(len(files.sentences), rows)
    if rest or not each:
        raise UserError(
            f"{files.captions} has {len(files.sentences)} captions for {rows} rows of "
            f"{files.features}, not a multiple: one of the two is cut short, so copy both again."
        )
    if per_image not in (None, each):
        raise UserError(
            f"{files.captions} has {each} captions for each row of {files.features}, not the "
            f"{per_image} of captions_per_image: correct it."
        )
    return each


def _repeats(files: ScanFiles, rows: int, per_image: int | None) -> np.ndarray | None:
    """Rows of each image if images are stored once per caption, else None."""
    if files.ids is not None:
        return _runs(files, files.ids, per_image)
    if per_image in (None, 1) or rows != len(files.sentences):
        return None
    if rows % per_image:
        raise UserError(
            f"{files.features} has {rows} rows, not a multiple of captions_per_image, {per_image}: "
            "correct one of the two."
        )
    return np.full(rows // per_image, per_image)


def _identical(files: ScanFiles, features: Rows) -> np.ndarray | None:
    """Lengths of the runs of bit-identical rows; None if less than half are like the row before."""
    last = len(features) - 1
    sample = np.unique(np.linspace(1, last, SAMPLED).astype(np.int64)) if last > 0 else ()
    if not len(sample) or 2 * sum(_equal_rows(features, i, i + 1)[0] for i in sample) < len(sample):
        return None
    step = max(1, _BLOCK_BYTES // features.row_bytes)
    blocks = [_equal_rows(features, i, min(i + step, last + 1)) for i in range(1, last + 1, step)]
    starts = np.flatnonzero(~np.concatenate([[False], *blocks]))
    many = f"{features.path} holds {len(starts):,} different rows of {last + 1:,}"
    if files.ids is not None:
        row = int(starts[np.diff(starts, append=last + 1) > 1][0])
        raise UserError(
            f"{many}, but {files.ids_file} gives rows {row} and {row + 1} (counted from 0), which "
            f"are identical, the ids {files.ids[row]} and {files.ids[row + 1]}: repeat the id of "
            "an image in all of its rows, or remove the file."
        )
    warnings.warn(
        f"{many}: identical neighbours are read as one image with a caption each",
        RuntimeWarning,
        stacklevel=4,
    )
    return np.diff(starts, append=last + 1)


def _equal_rows(features: Rows, start: int, end: int) -> np.ndarray:
    """Bool [end - start]: is a row the same, bit for bit, as the row before it?"""
    rows = features.gather(np.arange(start - 1, end))
    bits = rows.reshape(len(rows), -1).view(np.uint8)
    return (bits[1:] == bits[:-1]).all(axis=1)


def _runs(files: ScanFiles, ids: list[str], per_image: int | None) -> np.ndarray | None:
    """Lengths of the runs of equal ids; None if no id is repeated."""
    starts = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]
    seen: dict[str, int] = {}
    for start in starts:
        if ids[start] in seen:
            raise UserError(
                f"{files.ids_file}:{start + 1} repeats {ids[start]} of line "
                f"{seen[ids[start]] + 1} after other ids: put the rows of an image together."
            )
        seen[ids[start]] = start
    repeats = np.diff([*starts, len(ids)])
    if repeats.max() == 1:
        return None
    if per_image is not None and (repeats != per_image).any():
        wrong = int(np.flatnonzero(repeats != per_image)[0])
        raise UserError(
            f"{files.ids_file}:{starts[wrong] + 1} has {ids[starts[wrong]]} {repeats[wrong]} "
            f"times in a row where captions_per_image says {per_image}: correct one of the two."
        )
    return repeats
