"""What COCO's other files say of a data set's images: the objects in them, numbers of captions."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions_files import coco_images, load_json
from hmgr_jax.errors import UserError

KINDS = 90
"""COCO's numbers of kinds of objects go from 1 to 90; ten of them are not used."""


def with_objects(data: DataSet, path: Path) -> DataSet:
    """``data`` with `Split.labels` of dev and test: which of 90 kinds of objects an image shows.

    Captions have the labels of their image. Images that the file does not name have none: all zero.

    Args:
        data: with COCO's numbers of images.
        path: COCO's ``instances_X.json``.

    Raises:
        UserError: the file is malformed, or names none of the images of dev or test.
    """
    kinds = read_objects(path)
    splits = {
        role: split if role == "train" else _labelled(split, kinds, path)
        for role, split in data.splits.items()
    }
    return dataclasses.replace(data, splits=splits)


def _labelled(split: Split, kinds: dict[int, set[int]], path: Path) -> Split:
    numbers = split.numbers.get("image")
    if numbers is None:
        raise UserError(
            f"{path} knows images by COCO's numbers, which the images of {split.name} do not have: "
            "leave data.instances empty."
        )
    labels = np.zeros((len(numbers), KINDS), np.uint8)
    for row, number in enumerate(numbers.tolist()):
        labels[row, [kind - 1 for kind in kinds.get(number, ())]] = 1
    if not labels.any():
        raise UserError(
            f"{path} names none of the {len(numbers)} images of {split.name}: give the instances "
            "of the images that it is of (val2014 for Karpathy's dev and test)."
        )
    of_caption = _image_of_caption(split)
    return dataclasses.replace(split, labels={"image": labels, "text": labels[of_caption]})


def _image_of_caption(split: Split) -> np.ndarray:
    found = np.zeros(len(split.sources["text"]), np.int64)
    found[split.rows["text"]] = split.rows["image"]
    return found


def read_objects(path: Path) -> dict[int, set[int]]:
    """{number of an image: numbers of the kinds of objects that were found in it}.

    Raises:
        UserError: the file cannot be read, or is not COCO's.
    """
    try:
        with path.open(encoding="utf-8") as file:
            found = json.load(file, object_pairs_hook=_pair)  # outlines would take gigabytes
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the file.") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): download it again.") from None
    pairs = found.get("annotations") if isinstance(found, dict) else None
    if not isinstance(pairs, list) or not pairs or not all(isinstance(p, tuple) for p in pairs):
        raise UserError(
            f"{path} holds no list 'annotations' with image_id and category_id where COCO's "
            "instances have one: download it again."
        )
    kinds: dict[int, set[int]] = defaultdict(set)
    for image, kind in pairs:
        if not isinstance(kind, int) or not 1 <= kind <= KINDS:
            raise UserError(
                f"{path} has the category_id {kind!r} of image {image} where 1 to {KINDS} was "
                "expected: give COCO's own instances."
            )
        kinds[image].add(kind)
    return dict(kinds)


def _pair(pairs: list[tuple[str, Any]]) -> Any:
    """An annotation becomes (image, kind) as soon as it is read; others become a dict."""
    found = dict(pairs)
    if "category_id" in found and "image_id" in found:
        return found["image_id"], found["category_id"]
    return found


def with_numbers(data: DataSet, path: Path) -> DataSet:
    """``data`` with COCO's numbers of the captions of dev and test, found by image and text.

    Karpathy's file numbers captions in its own way, so `metrics.coco_protocols` could not be used.

    Args:
        data: with COCO's numbers of images.
        path: COCO's ``captions_X.json``.

    Raises:
        UserError: the file is malformed, or lacks a caption.
    """
    known: dict[tuple[str, str], list[int]] = defaultdict(list)
    for image in coco_images(path, load_json(path, "COCO's captions")):
        for caption, number in zip(image.captions, image.caption_ids, strict=False):
            known[image.names["cocoid"], caption].append(number)
    splits = {
        role: split if role == "train" else _numbered(split, known, path)
        for role, split in data.splits.items()
    }
    return dataclasses.replace(data, splits=splits)


def _numbered(split: Split, known: dict[tuple[str, str], list[int]], path: Path) -> Split:
    if "image" not in split.numbers:
        raise UserError(
            f"{path} knows images by COCO's numbers, which the images of {split.name} do not have: "
            "leave data.numbered empty."
        )
    captions = split.sources["text"].captions  # type: ignore[attr-defined]
    images = split.numbers["image"][_image_of_caption(split)].tolist()
    used: dict[tuple[str, str], int] = defaultdict(int)
    numbers = []
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        key = (str(image), caption)
        if used[key] >= len(known.get(key, ())):
            raise UserError(
                f"{path} has no caption {caption[:60]!r} of image {image}, which is "
                f"{split.ids['text'][i]} of {split.name}: give the captions of the images that it "
                "is of (val2014 for Karpathy's dev and test)."
            )
        numbers.append(known[key][used[key]])
        used[key] += 1
    found = {**split.numbers, "text": np.array(numbers, np.int64)}
    return dataclasses.replace(split, numbers=found)
