"""Images with captions as a file lists them, without their features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.errors import UserError
from hmgr_jax.files.walk import one_name

LONGEST_WORD = 4
"""Characters of a Chinese or Thai word; a text with more of them is a sentence."""
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
"""{name of a split in a file: its name in prepared folders}."""
SHARE = 0.1
"""Share of the images that dev and test have each, if nothing names their splits."""
ORDER = ("train", "dev", "test", "testall")


@dataclass(frozen=True)
class Captioned:
    """An image (or video) with its captions."""

    names: Mapping[str, str]
    """{kind: id}: filename, stem and perhaps cocoid, padded and imgid; features use one of them."""
    split: str | None
    """A value of `SPLITS`, None if the file does not name it."""
    captions: Sequence[str]
    where: str
    """The file and line, for messages."""
    caption_ids: Sequence[int] = ()
    """COCO's ids of the captions, if the file has them."""

    @property
    def id(self) -> str:
        """Its id in prepared folders."""
        return self.names["filename"]


def file_names(name: str) -> dict[str, str]:
    """Ids from a file name: itself, and without its ending."""
    path = PurePosixPath(name)
    stem = str(path.with_suffix("")) if path.suffix[1:].strip("0123456789") else name
    return {"filename": name, "stem": stem}


def read_split(name: str, where: str) -> str:
    """Return the value of `SPLITS` for a split's name in a file; ``UserError`` for others."""
    if name.lower() not in SPLITS:
        raise UserError(
            f"{where} has the split {name!r} where one of {', '.join(SPLITS)} was expected: "
            "correct it."
        )
    return SPLITS[name.lower()]


def clean_caption(caption: object, where: str) -> str:
    """Put a caption on one line with single spaces; ``UserError`` if it is empty or not text."""
    # A byte order mark is white space: as the first line of a file it would be gone.
    text = " ".join(caption.replace("\ufeff", " ").split()) if isinstance(caption, str) else ""
    if not text or not _is_unicode(text):
        raise UserError(f"{where} has {caption!r} for a caption: write one or remove it.")
    return text


def clean_captions(value: object, where: str) -> list[str]:
    """Clean one caption, or a list of them.

    Raises:
        UserError: a caption is empty or not text, or the list is of the words of one caption.
    """
    if not isinstance(value, list):
        return [clean_caption(value, where)]
    found = [clean_caption(text, where) for text in value]
    words = not any(" " in text or len(tokenize(text)) > LONGEST_WORD for text in found)
    if len(found) > 1 and words:
        raise UserError(
            f"{where} has the single words {value!r:.60} for captions: join them to one text."
        )
    return found


def clean_name(value: object, where: str) -> str:
    """Text of a name or id, as `one_name`; ``UserError`` if neither text nor a whole number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes ids with .0 where some are missing
    whole = isinstance(value, int) and not isinstance(value, bool)
    text = str(value).strip() if whole or isinstance(value, str) else ""
    control = any(char < " " or char in "\x7f\ufeff" for char in text)
    if not text or control or not _is_unicode(text):
        raise UserError(
            f"{where} has {value!r:.60} for a name or id: write text on one line, or an integer."
        )
    return one_name(text)


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: half of an emoji, a lone surrogate, cannot."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def coco_names(number: str) -> dict[str, str]:
    """Ids of an image from its COCO id."""
    digits = number.isascii() and number.isdigit()
    return {"cocoid": number} | ({"padded": number.zfill(12)} if digits else {})


def check_distinct(images: Iterable[Captioned]) -> list[Captioned]:
    """List ``images``.

    Raises:
        UserError: two have the same id; names the first.
    """
    seen: dict[str, str] = {}
    found = []
    for image in images:
        if image.id in seen:
            raise UserError(
                f"{image.where} lists {image.id} again after {seen[image.id]}: each must occur "
                "once, so remove one."
            )
        seen[image.id] = image.where
        found.append(image)
    return found


def first_captions(images: Iterable[Captioned], count: int | None) -> list[Captioned]:
    """Cut the captions of ``images`` to the first ``count`` each (None: all).

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
    images: Sequence[Captioned],
    *,
    dev: float | None = None,
    test: float | None = None,
    restval: bool = False,
) -> dict[str, list[Captioned]]:
    """Group ``images`` by split, in their order; with ``restval`` those of restval join train.

    If no image names its split, shares ``dev`` and ``test`` (None: `SHARE`) are chosen by a digest
    of the ids, so that the same ids give the same splits.

    Raises:
        UserError: some images name a split and others do not, shares are given for images that name
            theirs, or nothing is left to train on.
    """
    without = [image for image in images if image.split is None]
    if without and len(without) < len(images):
        raise UserError(
            f"{without[0].where} names no split for {without[0].id} where others do: give every "
            "image a split or none."
        )
    for flag, share in (("dev", dev), ("test", test)):
        if share is not None and not without:
            raise UserError(
                f"{images[0].where} and the others name the split of each image, so --{flag} "
                f"{share:g} has no effect: leave it out."
            )
    shares = (SHARE if share is None else share for share in (dev, test))
    drawn = _draw(images, *shares) if without else None
    found: dict[str, list[Captioned]] = {}
    for number, image in enumerate(images):
        split = drawn[number] if drawn else str(image.split)
        if split == "restval":
            if not restval:
                continue
            split = "train"
        found.setdefault(split, []).append(image)
    if not found:
        raise UserError("All images are in the split restval: give --restval to train on them.")
    return {name: found[name] for name in ORDER if name in found}


def hash_order(images: Sequence[Captioned]) -> list[int]:
    """Indices of ``images`` sorted by a digest of their ids: pseudo-random and reproducible."""
    return sorted(range(len(images)), key=lambda i: hashlib.sha256(images[i].id.encode()).digest())


def _draw(images: Sequence[Captioned], dev: float, test: float) -> list[str]:
    for flag, share in (("dev", dev), ("test", test)):
        if not 0 <= share < 1:
            raise UserError(f"--{flag} must be in [0, 1), got {share}: correct it.")
    counts = {
        name: share and max(1, round(share * len(images)))
        for name, share in (("test", test), ("dev", dev))
    }
    order = hash_order(images)
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
