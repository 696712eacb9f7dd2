"""What people said of pairs of an image and a caption: the judgments published with Flickr8k.

A folder holds ``ExpertAnnotations.txt``, ``CrowdFlowerAnnotations.txt`` (either may be absent) and
``Flickr8k.token.txt`` with the captions that they name (Hodosh, Young and Hockenmaier, JAIR 47,
2013). Most of the captions are of other images than the one they were judged with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.data.text.flickr8k import captions_by_id
from hmgr_jax.errors import UserError

EXPERT, CROWD, CAPTIONS = (
    "ExpertAnnotations.txt",
    "CrowdFlowerAnnotations.txt",
    "Flickr8k.token.txt",
)


@dataclass(frozen=True)
class Judgments:
    """Pairs of an image and a caption, and what people said of each."""

    images: tuple[str, ...]
    """File names, one a pair."""
    captions: tuple[str, ...]
    """Ids of the captions, ``image#number``, one a pair."""
    ratings: np.ndarray
    """float64 [pairs, raters], higher is better: three experts (1 to 4), or the crowd's share of
    yes (0 to 1) as one."""
    texts: tuple[str, ...]
    """The captions as written, one a pair."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def own(self) -> np.ndarray:
        """Bool [pairs]: the caption was written of this very image."""
        pairs = zip(self.images, self.captions, strict=True)
        return np.array([image == caption.rpartition("#")[0] for image, caption in pairs], bool)

    def pick(self, pairs: np.ndarray) -> Judgments:
        """Those of the pairs that a bool [pairs] or int [k] array names."""
        numbers = np.arange(len(self))[pairs].tolist()
        images, captions, texts = (
            tuple(names[i] for i in numbers) for names in (self.images, self.captions, self.texts)
        )
        return Judgments(images, captions, self.ratings[numbers], texts)


def read_judgments(folder: str | Path) -> dict[str, Judgments]:
    """``{"expert": ..., "crowd": ...}``, those of them that the folder holds.

    Raises ``UserError`` (one sentence with file and line) for a missing or malformed file, a pair
    that is judged twice, and a caption that the captions' file does not hold.
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
    """A name of an image as judgments spell it: without folders, with ``.jpg``."""
    name = PurePath(name).name
    return name if name.endswith(".jpg") else f"{name}.jpg"


def _read(
    path: Path, parse: Callable[[Sequence[str]], list[float]], texts: dict[str, str]
) -> Judgments:
    """The judgments of one file, each line an image, a caption and what ``parse`` reads."""
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
                f"{path}:{number} judges {image} with {caption} again: every pair must occur once."
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
    """The share of yes, computed from the counts: the file rounds it."""
    wanted = ValueError("the share of yes with the numbers of yes and no that it comes from")
    try:
        share, yes, no = float(values[0]), int(values[1]), int(values[2])
    except (ValueError, IndexError):
        raise wanted from None
    if len(values) != 3 or min(yes, no) < 0 or yes + no == 0:
        raise wanted
    if not abs(share - yes / (yes + no)) < 1e-3:
        raise wanted
    return [yes / (yes + no)]
