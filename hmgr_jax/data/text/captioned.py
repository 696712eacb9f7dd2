"""Images with their captions as a file lists them, before anything is known of features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from hmgr_jax.errors import UserError

SPLITS = {
    "train": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "validate": "dev",
    "test": "test",
    "testall": "testall",
    "restval": "restval",
}
"""What files call a split, and what it is called in the folder that is made."""
ORDER = ("train", "dev", "test", "testall")


@dataclass(frozen=True)
class Captioned:
    """One image."""

    names: Mapping[str, str]
    """{kind: id}: filename, stem and perhaps cocoid, padded and imgid; features have one of it."""
    split: str | None
    """A value of `SPLITS`, None where the file does not tell."""
    captions: Sequence[str]
    where: str
    """The file and the line, for people."""
    caption_ids: Sequence[int] = ()
    """COCO's numbers of the captions, where the file has them."""

    @property
    def id(self) -> str:
        """What it is called in the folder that is made."""
        return self.names["filename"]


def file_names(name: str) -> dict[str, str]:
    """The kinds of ids that a file name gives: itself, and without its ending."""
    path = PurePosixPath(name)
    stem = str(path.with_suffix("")) if path.suffix[1:].strip("0123456789") else name
    return {"filename": name, "stem": stem}


def read_split(name: str, where: str) -> str:
    """The value of `SPLITS` for what a file calls a split."""
    if name not in SPLITS:
        raise UserError(
            f"{where} has the split {name!r} where one of {', '.join(SPLITS)} was expected: "
            "correct it."
        )
    return SPLITS[name]


def tidy(caption: object, where: str) -> str:
    """A caption with single spaces and on one line."""
    text = " ".join(caption.split()) if isinstance(caption, str) else ""
    if not text:
        raise UserError(f"{where} has no caption but {caption!r}: fill it in or remove it.")
    return text


def distinct(images: Iterable[Captioned]) -> list[Captioned]:
    """``images`` as they come.

    Raises:
        UserError: the first that has the id of another.
    """
    seen: dict[str, str] = {}
    found = []
    for image in images:
        if image.id in seen:
            raise UserError(
                f"{image.where} is {image.id} again, which is {seen[image.id]} already: each must "
                "occur once."
            )
        seen[image.id] = image.where
        found.append(image)
    return found


def first_captions(images: Iterable[Captioned], count: int | None) -> list[Captioned]:
    """``images`` with their first ``count`` captions (None: all).

    Raises:
        UserError: an image has fewer.
    """
    kept = []
    for image in images:
        if count is not None and len(image.captions) < count:
            raise UserError(
                f"{image.where} gives {image.id} {len(image.captions)} captions where "
                f"--captions-per-image asks for {count}: ask for fewer."
            )
        kept.append(
            replace(image, captions=image.captions[:count], caption_ids=image.caption_ids[:count])
        )
    return kept


def by_split(
    images: Sequence[Captioned], *, dev: float, test: float, restval: bool
) -> dict[str, list[Captioned]]:
    """``images`` by split, in their order; those of restval join train with ``restval``.

    Where no image says its split, shares ``dev`` and ``test`` of them are drawn, by a digest of
    their ids: the same for the same ids, wherever and whenever.
    """
    told = [image for image in images if image.split is not None]
    if told and len(told) < len(images):
        lacking = next(image for image in images if image.split is None)
        raise UserError(
            f"{lacking.where} names no split of {lacking.id} where others do: give all a split or "
            "none."
        )
    drawn = None if told else _draw(images, dev, test)
    found: dict[str, list[Captioned]] = {}
    for number, image in enumerate(images):
        split = drawn[number] if drawn else str(image.split)
        if split == "restval":
            if not restval:
                continue
            split = "train"
        found.setdefault(split, []).append(image)
    if not found:
        raise UserError("All images are of the split restval: give --restval to train on them.")
    return {name: found[name] for name in ORDER if name in found}


def drawing_order(images: Sequence[Captioned]) -> list[int]:
    """Places of ``images`` by a digest of their ids: as good as chance, and always the same."""
    return sorted(range(len(images)), key=lambda i: hashlib.sha256(images[i].id.encode()).digest())


def _draw(images: Sequence[Captioned], dev: float, test: float) -> list[str]:
    for flag, share in (("dev", dev), ("test", test)):
        if not 0 <= share < 1:
            raise UserError(f"--{flag} is {share} where a share from 0 to 1 was expected.")
    counts = {
        name: share and max(1, round(share * len(images)))
        for name, share in (("test", test), ("dev", dev))
    }
    order = drawing_order(images)
    if counts["test"] + counts["dev"] >= len(images):
        raise UserError(
            f"Of {len(images)} images, {counts['dev']} for dev and {counts['test']} for test leave "
            "none to train on: give more pictures or smaller --dev and --test."
        )
    drawn = ["train"] * len(images)
    for name, count in counts.items():
        for i in order[: int(count)]:
            drawn[i] = name
        order = order[int(count) :]
    return drawn
