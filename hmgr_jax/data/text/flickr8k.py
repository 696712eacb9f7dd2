"""Flickr8k as published: its captions, and how people judged pairs of an image and a caption.

``Flickr8k.token.txt`` holds the captions. ``ExpertAnnotations.txt`` and
``CrowdFlowerAnnotations.txt`` hold the judgments (Hodosh, Young and Hockenmaier, JAIR 47, 2013);
most judged captions were written for another image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.errors import UserError

_LINE = re.compile(r"(\S+)#(\d+)\s+(.*\S)")


def read_flickr8k(tokens: str | Path, images: str | Path) -> dict[str, list[str]]:
    """Read {image: captions} for the images listed in ``images`` (one name a line), in its order.

    ``tokens`` has a line ``name#number <tab> caption`` for every caption; captions are sorted by
    number. Raises ``UserError`` for another line, an image listed twice or without captions.
    """
    tokens, images = Path(tokens), Path(images)
    numbered: dict[str, list[tuple[int, str]]] = {}
    for number, name in enumerate(read_lines(images), start=1):
        if name in numbered:
            raise UserError(f"{images}:{number} lists {name} again: remove the line.")
        numbered[name] = []
    for name, place, text in _lines_of(tokens):
        if name in numbered:
            numbered[name].append((place, text))
    without = next((name for name, captions in numbered.items() if not captions), None)
    if without is not None:
        raise UserError(
            f"{tokens} has no caption of {without}, which {images} lists: give both of one release."
        )
    return {name: [text for _, text in sorted(found)] for name, found in numbered.items()}


def captions_by_id(tokens: str | Path) -> dict[str, str]:
    """Read {``name#number``: caption} of ``Flickr8k.token.txt``."""
    return {f"{name}#{place}": text for name, place, text in _lines_of(Path(tokens))}


def _lines_of(tokens: Path) -> Iterator[tuple[str, int, str]]:
    """(image, number, caption) of every line."""
    for number, line in enumerate(read_lines(tokens), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(
                f'{tokens}:{number} is not "name#number, tab, caption" but {line[:40]!r}: give '
                "Flickr8k's own token file."
            )
        yield match[1], int(match[2]), match[3]


EXPERT, CROWD, CAPTIONS = (
    "ExpertAnnotations.txt",
    "CrowdFlowerAnnotations.txt",
    "Flickr8k.token.txt",
)


@dataclass(frozen=True)
class Judgments:
    """Pairs of an image and a caption with human ratings."""

    images: tuple[str, ...]
    """File name of each pair."""
    captions: tuple[str, ...]
    """Caption id of each pair, ``image#number``."""
    ratings: np.ndarray
    """float64 [pairs, raters], higher is better: three experts (1 to 4), or the crowd's share of
    yes (0 to 1) as one."""
    texts: tuple[str, ...]
    """Caption of each pair."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def own(self) -> np.ndarray:
        """Bool [pairs]: the caption was written for this image."""
        pairs = zip(self.images, self.captions, strict=True)
        return np.array([image == caption.rpartition("#")[0] for image, caption in pairs], bool)

    def pick(self, pairs: np.ndarray) -> Judgments:
        """Select pairs by a bool [pairs] or int [k] array."""
        numbers = np.arange(len(self))[pairs].tolist()
        images, captions, texts = (
            tuple(names[i] for i in numbers) for names in (self.images, self.captions, self.texts)
        )
        return Judgments(images, captions, self.ratings[numbers], texts)


def read_judgments(folder: str | Path) -> dict[str, Judgments]:
    """Read ``{"expert": ..., "crowd": ...}``, either of which may be absent from the folder.

    Raises:
        UserError: a file is missing or malformed, a pair is judged twice, or a caption is unknown;
            names file and line.
    """
    folder = Path(folder)
    files = {
        name: (folder / file, parse)
        for name, file, parse in (("expert", EXPERT, _expert), ("crowd", CROWD, _crowd))
        if (folder / file).is_file()
    }
    if not files or not (folder / CAPTIONS).is_file():
        raise UserError(
            f"{folder} should hold {CAPTIONS} and at least one of {EXPERT} and {CROWD}: give "
            "Flickr8k's text folder as eval.judgments, or leave it empty."
        )
    texts = captions_by_id(folder / CAPTIONS)
    return {name: _read(path, parse, texts) for name, (path, parse) in files.items()}


def image_name(name: str) -> str:
    """Image name in the form of the judgments: without folders, with ``.jpg``."""
    name = PurePath(name).name
    return name if name.endswith(".jpg") else f"{name}.jpg"


def _read(
    path: Path, parse: Callable[[Sequence[str]], list[float]], texts: dict[str, str]
) -> Judgments:
    """Read a file of judgments: in each line an image, a caption and what ``parse`` reads."""
    ratings: dict[tuple[str, str], list[float]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        try:
            found = parse(fields[2:])
        except ValueError as error:
            raise UserError(
                f"{path}:{number} should hold an image, a caption and {error}, it is "
                f"{line[:80]!r}: give Flickr8k's own file."
            ) from None
        image, caption = fields[:2]
        if caption not in texts:
            raise UserError(
                f"{path}:{number} judges caption {caption}, which {CAPTIONS} beside it does not "
                "hold: give both files of one release."
            )
        if (image, caption) in ratings:
            raise UserError(
                f"{path}:{number} judges {image} with {caption} again: remove the line."
            )
        ratings[image, caption] = found
    if not ratings:
        raise UserError(f"{path} is empty: give Flickr8k's own file.")
    images, captions = zip(*ratings, strict=True)
    values = np.array(list(ratings.values()), np.float64)
    return Judgments(images, captions, values, tuple(texts[caption] for caption in captions))


def _expert(values: Sequence[str]) -> list[float]:
    if len(values) != 3 or not all(value in ("1", "2", "3", "4") for value in values):
        raise ValueError("three ratings from 1 to 4")
    return [float(value) for value in values]


def _crowd(values: Sequence[str]) -> list[float]:
    """Share of yes, computed from the counts because the file rounds it."""
    wanted = ValueError("the share of yes with the numbers of yes and no")
    try:
        share, yes, no = float(values[0]), int(values[1]), int(values[2])
    except (ValueError, IndexError):
        raise wanted from None
    if len(values) != 3 or min(yes, no) < 0 or yes + no == 0:
        raise wanted
    if not abs(share - yes / (yes + no)) < 1e-3:
        raise wanted
    return [yes / (yes + no)]
