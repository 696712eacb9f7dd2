"""Captions in COCO's own format: a list of images, and annotations that name them by id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hmgr_jax.data.text.captioned import Captioned, distinct, file_names, tidy
from hmgr_jax.errors import UserError


def coco_images(path: Path, found: Mapping[str, Any]) -> list[Captioned]:
    """The images of ``captions_X.json``, in its order; it tells no split.

    Raises:
        UserError: an image or annotation twice, an annotation of an unknown image, an empty
            caption, an image without captions: the first of them.
    """
    of_id = _images(path, found)
    captions: dict[str, list[str]] = {image: [] for image in of_id}
    numbers: dict[str, list[int]] = {image: [] for image in of_id}
    seen: dict[Any, str] = {}
    for number, annotation in enumerate(_listed(path, found, "annotations")):
        where = f"{path}, annotation {number}"
        image = str(_of(annotation, "image_id", where))
        if image not in captions:
            raise UserError(
                f"{where} is of image {image}, which is none of the {len(of_id)} images of the "
                "file: give the file that lists it, or remove the annotation."
            )
        if "id" in annotation and seen.setdefault(annotation["id"], where) != where:
            raise UserError(
                f"{where} has the id {annotation['id']}, which {seen[annotation['id']]} has "
                "already: remove one of the two."
            )
        captions[image].append(tidy(_of(annotation, "caption", where), where))
        if isinstance(annotation.get("id"), int):
            numbers[image].append(annotation["id"])
    for image, texts in captions.items():
        if not texts:
            name, where = of_id[image]
            raise UserError(f"{where} ({name}) has no annotation: caption the image or remove it.")
    return distinct(
        Captioned(_names(name, image), None, texts, where, _whole(numbers[image], texts))
        for (image, (name, where)), texts in zip(of_id.items(), captions.values(), strict=True)
    )


def _images(path: Path, found: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """{id: (file name, place in the file)}."""
    of_id: dict[str, tuple[str, str]] = {}
    for number, image in enumerate(_listed(path, found, "images")):
        where = f"{path}, image {number}"
        name = (str(_of(image, "file_name", where)), where)
        known = of_id.setdefault(str(_of(image, "id", where)), name)
        if known is not name:
            raise UserError(
                f"{where} has the id {image['id']}, which {known[1]} has already: remove one of "
                "the two."
            )
    return of_id


def _names(name: str, image: str) -> dict[str, str]:
    number = {"padded": f"{int(image):012d}"} if image.isascii() and image.isdigit() else {}
    return {**file_names(name), "cocoid": image, **number}


def _listed(path: Path, found: Mapping[str, Any], key: str) -> list[Any]:
    listed = found.get(key)
    if not isinstance(listed, list) or not listed:
        raise UserError(
            f"{path} holds no list {key!r} where COCO's captions have images and annotations: "
            "download it again."
        )
    return listed


def _of(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or entry.get(key) is None:
        raise UserError(
            f"{where} (counted from 0) lacks {key!r} where COCO's captions have it: download the "
            "file again."
        )
    return entry[key]


def _whole(numbers: list[int], captions: list[str]) -> list[int]:
    """The numbers where every caption has one."""
    return numbers if len(numbers) == len(captions) else []
