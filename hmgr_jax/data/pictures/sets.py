"""Data sets of picture files with captions, from any list."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.data.pictures.files import readable_pictures
from hmgr_jax.data.pictures.pixels import Augmentation, PictureFiles, PixelSource
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions import MAX_WORDS, CaptionSource, captioned_split
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import Vocabulary, build_vocabulary
from hmgr_jax.errors import UserError


@dataclass(frozen=True)
class ListedPicture:
    """A picture of a list."""

    name: str
    file: Path | None
    """None if it is missing."""
    captions: Sequence[str]
    where: str
    """The list and line, for messages."""
    group: int | None = None
    """Class whose pictures are positives of one another; None: the picture is its own."""
    number: int | None = None
    """COCO's id of the picture."""
    caption_numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Settings:
    """How pictures and captions are read."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    corrupt: str = "refuse"
    max_words: int = MAX_WORDS
    vocabulary: Vocabulary | None = None
    vocabulary_captions: Mapping[str, Sequence[str]] | None = None
    """{picture: captions} from elsewhere, counted for the vocabulary."""
    threads: int = 2


def picture_set(
    root: Path,
    lists: Mapping[str, Sequence[ListedPicture]],
    files: Iterable[Path],
    settings: Settings,
) -> DataSet:
    """Make a data set of ``lists`` ({role: pictures}).

    ``files`` are those of the lists: they, and the names and sizes of the pictures, make the
    fingerprint.

    Raises:
        UserError: a picture is in two splits, missing or damaged (see `readable_pictures`), or
            there are no words.
    """
    _check_disjoint(lists)
    kept = {role: _kept(role, listed, settings) for role, listed in lists.items()}
    split = settings.vocabulary.tokenize if settings.vocabulary else tokenize
    tokens = {
        role: [split(caption) for one in listed for caption in one.captions]
        for role, listed in kept.items()
    }
    vocabulary = settings.vocabulary or build_vocabulary(
        root,
        {
            role: [caption for one in listed for caption in one.captions]
            for role, listed in kept.items()
        },
        tokens,
        settings.vocabulary_captions or {},
        {one.name for role, listed in kept.items() if role != "train" for one in listed},
    )
    splits = {
        role: _split(role, listed, tokens[role], vocabulary, settings)
        for role, listed in kept.items()
    }
    return DataSet(root.resolve().name, splits, vocabulary, _fingerprint(root, files, kept))


def _kept(role: str, listed: Sequence[ListedPicture], settings: Settings) -> list[ListedPicture]:
    """Pictures that are not left out."""
    named = [(one.name, one.file, one.where) for one in listed]
    found = readable_pictures(named, settings.corrupt, role, settings.threads)
    return [one for one, file in zip(listed, found, strict=True) if file is not None]


def _check_disjoint(lists: Mapping[str, Sequence[ListedPicture]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for role, listed in lists.items():
        if not listed:
            raise UserError(f"The {role} split has no pictures: correct what data.splits names.")
        for one in listed:
            other, where = seen.setdefault(one.name, (role, one.where))
            if other != role:
                raise UserError(
                    f"{one.where} puts {one.name} into {role}, but {where} puts it into {other}: "
                    "remove it from one of them."
                )


def _split(
    role: str,
    listed: Sequence[ListedPicture],
    tokens: Sequence[Sequence[str]],
    vocabulary: Vocabulary,
    settings: Settings,
) -> Split:
    counts = [len(one.captions) for one in listed]
    image = np.repeat(np.arange(len(listed), dtype=np.int32), counts)
    group = np.array([i if x.group is None else x.group for i, x in enumerate(listed)], np.int32)
    files = [one.file for one in listed if one.file is not None]
    sentences = [caption for one in listed for caption in one.captions]
    texts = CaptionSource(tokens, vocabulary, max_words=settings.max_words, captions=sentences)
    images = PixelSource(PictureFiles(files), settings.augmentation)
    names = [one.name for one in listed]
    return captioned_split(
        role, "image", images, texts, image, names, group, numbers=_numbers(listed)
    )


def _numbers(listed: Sequence[ListedPicture]) -> dict[str, np.ndarray]:
    """COCO's ids of pictures and captions, if all have one."""
    found: dict[str, np.ndarray] = {}
    images = [one.number for one in listed if one.number is not None]
    if len(images) == len(listed):
        found["image"] = np.array(images, np.int64)
    if all(len(one.caption_numbers) == len(one.captions) for one in listed):
        found["text"] = np.array([n for one in listed for n in one.caption_numbers], np.int64)
    return found


def _fingerprint(
    root: Path, files: Iterable[Path], lists: Mapping[str, Sequence[ListedPicture]]
) -> str:
    """Digest of the lists, and of the names and sizes of the pictures."""
    digest = hashlib.sha256(fingerprint(files, root).encode())
    for role, listed in lists.items():
        for one in listed:
            size = one.file.stat().st_size if one.file else 0
            digest.update(f"{role}\0{one.name}\0{size}\0".encode())
    return digest.hexdigest()
