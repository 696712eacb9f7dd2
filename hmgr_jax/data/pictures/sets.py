"""Data sets of pictures with captions: files of pictures, and whatever lists them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.data.pictures.files import readable
from hmgr_jax.data.pictures.pixels import Augmentation, PictureFiles, PixelSource
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions import MAX_WORDS, CaptionSource
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import Vocabulary, build_vocabulary
from hmgr_jax.errors import UserError


@dataclass(frozen=True)
class Listed:
    """A picture as a list names it."""

    name: str
    file: Path | None
    """None where there is no such file."""
    captions: Sequence[str]
    where: str
    """The list and the line, for people."""
    group: int | None = None
    """Number of its class, where pictures of one class belong together; None: it is its own."""
    number: int | None = None
    """COCO's number of the picture."""
    caption_numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Settings:
    """How pictures and captions are read, whatever lists them."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    corrupt: str = "refuse"
    max_words: int = MAX_WORDS
    vocabulary: Vocabulary | None = None
    vocabulary_captions: Mapping[str, Sequence[str]] | None = None
    """{picture: captions} from elsewhere whose words count too."""
    threads: int = 2


def picture_set(
    root: Path, lists: Mapping[str, Sequence[Listed]], files: Iterable[Path], settings: Settings
) -> DataSet:
    """A data set of the pictures that ``lists`` ({role: pictures}) name.

    ``files`` are those that the lists were read from: with the names and sizes of the pictures they
    make the fingerprint.

    Raises:
        UserError: a picture is in two splits, missing or damaged (see `picture_folder.readable`),
            or there are no words.
    """
    _demand_apart(lists)
    kept = {role: _kept(role, listed, settings) for role, listed in lists.items()}
    split = settings.vocabulary.tokenize if settings.vocabulary else tokenize
    tokens = {
        role: [split(caption) for one in listed for caption in one.captions]
        for role, listed in kept.items()
    }
    vocabulary = settings.vocabulary or _vocabulary(root, kept, tokens, settings)
    splits = {
        role: _split(role, listed, tokens[role], vocabulary, settings)
        for role, listed in kept.items()
    }
    return DataSet(root.resolve().name, splits, vocabulary, _fingerprint(root, files, kept))


def _kept(role: str, listed: Sequence[Listed], settings: Settings) -> list[Listed]:
    """The pictures that are there."""
    named = [(one.name, one.file, one.where) for one in listed]
    found = readable(named, settings.corrupt, role, settings.threads)
    return [one for one, file in zip(listed, found, strict=True) if file is not None]


def _demand_apart(lists: Mapping[str, Sequence[Listed]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for role, listed in lists.items():
        if not listed:
            raise UserError(f"The {role} split has no pictures: correct what data.splits names.")
        for one in listed:
            other, where = seen.setdefault(one.name, (role, one.where))
            if other != role:
                raise UserError(
                    f"{one.where} puts {one.name} into {role}, but {where} has it in {other}: a "
                    "picture is of one split, so remove it from one of them."
                )


def _vocabulary(
    root: Path,
    lists: Mapping[str, Sequence[Listed]],
    tokens: Mapping[str, Sequence[Sequence[str]]],
    settings: Settings,
) -> Vocabulary:
    if "train" not in lists:
        raise UserError(
            f"{root} was opened without its train split, so no vocabulary can be built: give the "
            "one the model was trained with."
        )
    ours = [role for role in ("train", "dev") if role in lists]
    return build_vocabulary(
        root,
        [caption for role in ours for one in lists[role] for caption in one.captions],
        [words for role in ours for words in tokens[role]],
        settings.vocabulary_captions or {},
        {one.name for role, listed in lists.items() if role != "train" for one in listed},
    )


def _split(
    role: str,
    listed: Sequence[Listed],
    tokens: Sequence[Sequence[str]],
    vocabulary: Vocabulary,
    settings: Settings,
) -> Split:
    counts = [len(one.captions) for one in listed]
    image = np.repeat(np.arange(len(listed), dtype=np.int32), counts)
    group = np.array([i if x.group is None else x.group for i, x in enumerate(listed)], np.int32)
    files = [one.file for one in listed if one.file is not None]
    sentences = [caption for one in listed for caption in one.captions]
    return Split(
        name=role,
        sources={
            "image": PixelSource(PictureFiles(files), settings.augmentation),
            "text": CaptionSource(
                tokens, vocabulary, max_words=settings.max_words, captions=sentences
            ),
        },
        groups={"image": group, "text": group[image]},
        rows={"image": image, "text": np.arange(len(image), dtype=np.int32)},
        ids={
            "image": [one.name for one in listed],
            "text": [f"{one.name}#{k}" for one in listed for k in range(len(one.captions))],
        },
        numbers=_numbers(listed),
    )


def _numbers(listed: Sequence[Listed]) -> dict[str, np.ndarray]:
    """COCO's numbers of pictures and captions, where all have one."""
    found: dict[str, np.ndarray] = {}
    images = [one.number for one in listed if one.number is not None]
    if len(images) == len(listed):
        found["image"] = np.array(images, np.int64)
    if all(len(one.caption_numbers) == len(one.captions) for one in listed):
        found["text"] = np.array([n for one in listed for n in one.caption_numbers], np.int64)
    return found


def _fingerprint(root: Path, files: Iterable[Path], lists: Mapping[str, Sequence[Listed]]) -> str:
    """Of the lists' contents, and of the names and sizes of the pictures that are used."""
    digest = hashlib.sha256(fingerprint(files, root).encode())
    for role, listed in lists.items():
        for one in listed:
            size = one.file.stat().st_size if one.file else 0
            digest.update(f"{role}\0{one.name}\0{size}\0".encode())
    return digest.hexdigest()
