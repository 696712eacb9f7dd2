"""Annotations of COCO images from its other files: object categories, and ids of captions."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions_files import coco_images, load_json
from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import read_json

KINDS = 90
"""COCO's category ids go from 1 to 90; ten of them are not used."""


def with_objects(data: DataSet, path: Path) -> DataSet:
    """Add `Split.labels` to dev and test: which of 90 categories of objects an image shows.

    Captions have the labels of their image. Images that the file does not list have none: all zero.

    Args:
        data: with COCO's ids of images.
        path: COCO's ``instances_X.json``.

    Raises:
        UserError: the file is malformed, or lists no image of dev or test.
    """
    kinds = read_objects(path)
    return _for_evaluation(data, lambda split: _labelled(split, kinds, path))


def _for_evaluation(data: DataSet, change: Callable[[Split], Split]) -> DataSet:
    """Change the splits other than train."""
    splits = {
        role: split if role == "train" else change(split) for role, split in data.splits.items()
    }
    return dataclasses.replace(data, splits=splits)


def _image_ids(split: Split, path: Path, key: str) -> np.ndarray:
    """COCO's ids of the images of a split."""
    if "image" not in split.numbers:
        raise UserError(
            f"{path} lists images by COCO's ids, which the images of {split.name} do not have: "
            f"leave data.{key} empty."
        )
    return split.numbers["image"]


def _labelled(split: Split, kinds: dict[int, set[int]], path: Path) -> Split:
    numbers = _image_ids(split, path, "instances")
    labels = np.zeros((len(numbers), KINDS), np.uint8)
    for row, number in enumerate(numbers.tolist()):
        labels[row, [kind - 1 for kind in kinds.get(number, ())]] = 1
    if not labels.any():
        raise UserError(
            f"{path} lists none of the {len(numbers)} images of {split.name}: give the instances "
            "of its images (val2014 for Karpathy's dev and test)."
        )
    of_caption = _image_of_caption(split)
    return dataclasses.replace(split, labels={"image": labels, "text": labels[of_caption]})


def _image_of_caption(split: Split) -> np.ndarray:
    """Image of every caption, int64 [captions]."""
    found = np.zeros(len(split.sources["text"]), np.int64)
    found[split.rows["text"]] = split.rows["image"]
    return found


def read_objects(path: Path) -> dict[int, set[int]]:
    """Read {id of an image: category ids of its objects}.

    Raises:
        UserError: the file cannot be read, or is not COCO's.
    """
    found = read_json(path, object_pairs_hook=_pair)  # without outlines, which take gigabytes
    pairs = found.get("annotations") if isinstance(found, dict) else None
    if not isinstance(pairs, list) or not pairs or not all(isinstance(p, tuple) for p in pairs):
        raise UserError(
            f"{path} holds no list 'annotations' with image_id and category_id where COCO's "
            "instances have one: download it again."
        )
    kinds: dict[int, set[int]] = defaultdict(set)
    for image, kind in pairs:
        if not isinstance(image, int) or not isinstance(kind, int) or not 1 <= kind <= KINDS:
            raise UserError(
                f"{path} has the category_id {kind!r} of image {image} where 1 to {KINDS} was "
                "expected: give COCO's own instances."
            )
        kinds[image].add(kind)
    return dict(kinds)


def _pair(pairs: list[tuple[str, Any]]) -> Any:
    """Reduce an annotation to (image, category) as it is parsed; other objects become a dict."""
    found = dict(pairs)
    if "category_id" in found and "image_id" in found:
        return found["image_id"], found["category_id"]
    return found


def with_numbers(data: DataSet, path: Path) -> DataSet:
    """Add COCO's ids of the captions of dev and test, found by image and text.

    Karpathy's file has caption ids of its own, which `metrics.coco_protocols` cannot use.

    Args:
        data: with COCO's ids of images.
        path: COCO's ``captions_X.json``.

    Raises:
        UserError: the file is malformed, or lacks a caption.
    """
    known: dict[tuple[str, str], list[int]] = defaultdict(list)
    for image in coco_images(path, load_json(path, "COCO's captions")):
        for caption, number in zip(image.captions, image.caption_ids, strict=False):
            known[image.names["cocoid"], caption].append(number)
    return _for_evaluation(data, lambda split: _numbered(split, known, path))


def _numbered(split: Split, known: dict[tuple[str, str], list[int]], path: Path) -> Split:
    captions = split.sources["text"].captions  # type: ignore[attr-defined]
    images = _image_ids(split, path, "numbered")[_image_of_caption(split)].tolist()
    used: dict[tuple[str, str], int] = defaultdict(int)
    numbers = []
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        key = (str(image), caption)
        if used[key] >= len(known.get(key, ())):
            raise UserError(
                f"{path} has no caption {caption[:60]!r} of image {image}, which is "
                f"{split.ids['text'][i]} of {split.name}: give the captions of its images (val2014 "
                "for Karpathy's dev and test)."
            )
        numbers.append(known[key][used[key]])
        used[key] += 1
    found = {**split.numbers, "text": np.array(numbers, np.int64)}
    return dataclasses.replace(split, numbers=found)
