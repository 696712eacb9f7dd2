"""Galleries: items of a split, a folder or a file, with codes of equal shape."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.pictures.files import PictureFolder
from hmgr_jax.data.pictures.pixels import PictureFiles, PixelSource
from hmgr_jax.data.regions.regions import RegionSource
from hmgr_jax.data.split import Items, Source, Split
from hmgr_jax.data.text.captions import read_lines, warn_unknown
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files import manifest
from hmgr_jax.progress import Progress
from hmgr_jax.search.index import Item

ROLES, ALL = ("train", "dev", "test"), "all"
"""The splits of a run, and the name of all of them."""


@dataclass(frozen=True)
class Gallery:
    """Items of one modality with their descriptions."""

    modality: str
    source: Source
    items: Sequence[Item]
    split: str = ""
    """The split of the run, if the items are from one."""

    def codes(self, retriever: Retriever) -> Any:
        """Codes with a leading item axis; sentences are padded to one length."""
        count = len(self.source)
        bar = Progress(count, "items", title="encoding", stream=sys.stderr, announce_after=2.0)
        with bar:
            return encoded(retriever, self.modality, Counted(self.source, bar.advance))


class Counted:
    """A source that reports how many items were read."""

    def __init__(self, source: Source, advance: Callable[[int], None]) -> None:
        self._source, self._advance, self.lengths = source, advance, source.lengths
        self.item_bytes = getattr(source, "item_bytes", 0)

    def __len__(self) -> int:
        return len(self._source)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """The items of the source."""
        found = self._source.gather(items, length)
        self._advance(len(np.unique(items)))  # the last batch is padded
        return found


class OneLength:
    """Items padded to the longest one, so that their codes have equal shapes."""

    lengths: np.ndarray | None = None

    def __init__(self, source: Source, buckets: Sequence[int]) -> None:
        assert source.lengths is not None
        longest = int(source.lengths.max())
        self._source = source
        self._length = min((n for n in buckets if n >= longest), default=longest)

    def __len__(self) -> int:
        return len(self._source)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """The items of the source."""
        return self._source.gather(items, self._length)


def encoded(retriever: Retriever, modality: str, source: Source) -> Any:
    """Codes of all items of a source, with a leading item axis."""
    if source.lengths is not None:
        source = OneLength(source, retriever.evaluator.buckets)
    return retriever.evaluator.encode(retriever.variables, modality, source)


def of_split(
    retriever: Retriever, role: str, modality: str | None, pictures: Path | None = None
) -> Gallery:
    """The items of train, dev or test of a run, or of all three.

    The owner of a caption is the item that it describes; other items own themselves. ``pictures``
    is the folder of the picture files that ids name; a system trained on pixels has its own files.

    Raises:
        UserError: the data or the modality is missing.
    """
    if role == ALL:
        return of_all_splits(retriever, modality, pictures)
    split = retriever.open((role,)).splits[role]
    modality = modality or split.visual
    check_modality(retriever, modality)
    visual, ids = split.visual, split.ids[modality]
    owned = _first_partner(split, modality, visual)
    captions = _captions(split)
    if modality == "text":
        said = [captions.get(number, "") for number in range(len(ids))]
    else:
        first = _first_partner(split, modality, "text") if captions else None
        said = ["" if first is None else captions.get(int(first[n]), "") for n in range(len(ids))]
    files = _files(split, pictures)
    items = [
        Item(str(ids[n]), said[n], files.get(int(owned[n]), ""), str(split.ids[visual][owned[n]]))
        for n in range(len(ids))
    ]
    return Gallery(modality, split.sources[modality], items, role)


class Chained:
    """The items of several sources, one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._ends = np.cumsum([len(source) for source in sources])
        parts = [source.lengths for source in sources]
        some = [lengths for lengths in parts if lengths is not None]
        self.lengths = np.concatenate(some) if some else None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """The items, in the order given."""
        items = np.asarray(items, np.int64).reshape(-1)
        of = np.searchsorted(self._ends, items, side="right")
        found, places = [], []
        for number, source in enumerate(self._sources):
            at = np.flatnonzero(of == number)
            if len(at):
                found.append(source.gather(items[at] - self._ends[number] + len(source), length))
                places.append(at)
        order = np.argsort(np.concatenate(places))
        return {name: np.concatenate([x[name] for x in found])[order] for name in found[0]}


def of_all_splits(
    retriever: Retriever, modality: str | None, pictures: Path | None = None
) -> Gallery:
    """The items of train, dev and test, in this order; see `of_split`."""
    parts = [of_split(retriever, role, modality, pictures) for role in ROLES]
    items = [item for part in parts for item in part.items]
    return Gallery(parts[0].modality, Chained([part.source for part in parts]), items, ALL)


def of_prepared(retriever: Retriever, folder: Path, pictures: Path | None = None) -> Gallery:
    """The pictures that ``prepare folder`` described without captions.

    ``pictures`` is the folder of the picture files, for sheets.

    Raises:
        UserError: the folder is no such gallery, or another encoder than that of the run made it.
    """
    check_modality(retriever, "image")
    if "pixels" in retriever.model.inputs()["image"]:
        raise UserError(
            f"{retriever.workdir} was trained on pixels, but {folder} holds features: give the "
            "folder of the pictures as --images."
        )
    described = manifest.encoder_of(folder)
    if described != json.loads(json.dumps(retriever.picture_encoder.describe())):
        raise UserError(
            f"{folder} was made by another encoder than the data of {retriever.workdir}: prepare "
            "it with the same --encoder, --grid and --pca."
        )
    ids = read_lines(folder / f"{manifest.GALLERY}_ids.txt")
    boxes = np.load(folder / f"{manifest.GALLERY}_boxes.npy")
    source = RegionSource(folder / f"{manifest.GALLERY}_ims.npy", more={"boxes": boxes})
    shown = PictureFolder(pictures, "--pictures") if pictures else None
    files = [shown.find_shown(name) if shown else None for name in ids]
    items = [
        Item(name, "", str(file.resolve()) if file else "", name)
        for name, file in zip(ids, files, strict=True)
    ]
    return Gallery("image", source, items)


def of_captions(retriever: Retriever, file: Path) -> Gallery:
    """The sentences of a file, one per line.

    Raises:
        UserError: the system reads no sentences, or the file cannot be read or has an empty line.
    """
    check_modality(retriever, "text")
    lines = read_lines(file)
    source = retriever.sentence_source(lines)
    warn_unknown({str(file): source})
    return Gallery("text", source, [Item(f"{n}", line) for n, line in enumerate(lines)])


def check_modality(retriever: Retriever, modality: str) -> None:
    """Check that the system has a modality.

    Raises:
        UserError: the system lacks it; the message lists the available modalities.
    """
    known = retriever.model.modalities
    if modality not in known:
        name = retriever.config.model.name
        raise UserError(f"{name} has no modality {modality}: choose from {', '.join(known)}.")


def _first_partner(split: Split, modality: str, other: str) -> np.ndarray:
    """For every item of a modality, the first item of another modality in the same row."""
    found = np.zeros(len(split.ids[modality]), np.int64)
    rows, others = split.rows[modality], split.rows[other]
    found[rows[::-1]] = others[::-1]  # the first row is written last
    return found


def _captions(split: Split) -> dict[int, str]:
    """Original sentences by number; empty for a data set without words."""
    source = split.sources.get("text")
    return dict(enumerate(getattr(source, "captions", ())))


def _files(split: Split, folder: Path | None) -> dict[int, str]:
    """{number of a visual item: file of its picture}, without unknown files."""
    source, ids = split.sources[split.visual], split.ids[split.visual]
    if folder is not None:
        pictures = PictureFolder(folder, "--pictures")
        found = {n: pictures.find_shown(str(name)) for n, name in enumerate(ids)}
        if not any(found.values()):
            raise UserError(
                f"{folder} holds no picture of the {split.name} split, such as {ids[0]}: correct "
                "--pictures."
            )
        return {n: str(path.resolve()) for n, path in found.items() if path is not None}
    if isinstance(source, PixelSource) and isinstance(source.pictures, PictureFiles):
        return {n: str(path.resolve()) for n, path in enumerate(source.pictures.files)}
    return {}
