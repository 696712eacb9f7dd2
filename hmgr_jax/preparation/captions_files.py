"""Files of captions: Karpathy's JSON, and tables as CSV or JSONL."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError
from hmgr_jax.preparation.captioned import Captioned, file_names, read_split, tidy

IMAGE_COLUMNS = ("image", "filename", "file_name", "image_id")
CAPTION_COLUMNS = ("caption", "text", "sentence")


def read_captions(path: Path) -> list[Captioned]:
    """The images of a captions file, in its order, by its ending: .json, .csv or .jsonl.

    Raises:
        UserError: another ending, or the first line that is not as expected.
    """
    readers = {".json": read_karpathy, ".csv": read_table, ".jsonl": read_table}
    if path.suffix.lower() not in readers:
        raise UserError(
            f"{path} ends in {path.suffix!r} where .csv, .jsonl or Karpathy's .json was expected: "
            "convert it."
        )
    return readers[path.suffix.lower()](path)


def read_karpathy(path: Path) -> list[Captioned]:
    """The images of dataset_coco.json, dataset_flickr30k.json or dataset_flickr8k.json.

    The test images of COCO are all 5,000, which recipes know as ``testall``.
    """
    try:
        with path.open(encoding="utf-8") as file:
            found = json.load(file, object_hook=_only_raw)  # words alone would take a gigabyte
        images, name = found["images"], found.get("dataset")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the file.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no dataset_X.json of Karpathy, an object with a list 'images' ({error!r}): "
            "download it again."
        ) from None
    return _distinct(
        _karpathy_image(image, f"{path}, image {number}", name == "coco")
        for number, image in enumerate(images)
    )


def _only_raw(found: dict[str, Any]) -> Any:
    """Of a sentence nothing but its text is kept."""
    return found["raw"] if "raw" in found and "filename" not in found else found


def _karpathy_image(image: Any, where: str, coco: bool) -> Captioned:
    try:
        names = file_names(str(image["filename"]))
        split, sentences = str(image["split"]), list(image["sentences"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{where} (counted from 0), lacks {error} where filename, split and sentences were "
            "expected: download the file again."
        ) from None
    if "cocoid" in image:
        names |= {"cocoid": str(image["cocoid"]), "padded": f"{int(image['cocoid']):012d}"}
    if "imgid" in image:
        names["imgid"] = str(image["imgid"])
    if not sentences:
        raise UserError(f"{where} ({names['filename']}) has no sentences: remove the image.")
    captions = [tidy(raw, f"{where}, sentence {k}") for k, raw in enumerate(sentences)]
    split = read_split(split, where)
    return Captioned(names, "testall" if coco and split == "test" else split, captions, where)


def read_table(path: Path) -> list[Captioned]:
    """The images of a table with a caption a row; rows of one image need not stand together."""
    captions: dict[str, list[str]] = {}
    first: dict[str, tuple[str, str | None]] = {}
    for where, row in _rows(path):
        image = _cell(row, IMAGE_COLUMNS, where)
        told = row.get("split")
        split = read_split(str(told).strip(), where) if told not in (None, "") else None
        if image not in first:
            first[image] = (where, split)
        elif first[image][1] != split:
            raise UserError(
                f"{where} puts {image} into the split {split} where {first[image][0]} says "
                f"{first[image][1]}: an image is of one split."
            )
        text = tidy(_cell(row, CAPTION_COLUMNS, where), where)
        captions.setdefault(image, []).append(text)
    if not captions:
        raise UserError(f"{path} holds no captions: give a row a caption.")
    return [
        Captioned(file_names(image), first[image][1], found, first[image][0])
        for image, found in captions.items()
    ]


def _cell(row: Mapping[str, Any], columns: tuple[str, ...], where: str) -> str:
    value = next((row[name] for name in columns if row.get(name) is not None), None)
    if value is None or not str(value).strip():
        raise UserError(
            f"{where} lacks {columns[0]!r}: every row names an image and one caption of it."
        )
    return str(value).strip()


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a table, each with what a person calls its place."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv(path, file) if path.suffix.lower() == ".csv" else _jsonl(path, file)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the file.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8.") from None


def _csv(path: Path, file: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    table = csv.DictReader(file, strict=True)
    try:
        columns = [name.strip() for name in table.fieldnames or ()]
        table.fieldnames = columns
        for wanted in (IMAGE_COLUMNS, CAPTION_COLUMNS):
            if not set(wanted) & set(columns):
                raise UserError(
                    f"{path}:1 has the columns {', '.join(columns) or 'none'} where "
                    f"{wanted[0]!r} was expected: name the columns image and caption in the first "
                    "line."
                )
        for row in table:
            if None in row:
                raise UserError(
                    f"{path}:{table.line_num} has more cells than the {len(columns)} columns: put "
                    "captions with commas in double quotes."
                )
            yield f"{path}:{table.line_num}", row
    except csv.Error as error:
        raise UserError(
            f"{path}:{table.reader.line_num} is no CSV ({error}): correct the line."
        ) from None


def _jsonl(path: Path, file: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number} is no JSON ({error}): correct the line.") from None
        if not isinstance(row, dict):
            raise UserError(
                f"{path}:{number} is no object with image and caption: correct the line."
            )
        yield f"{path}:{number}", row


def _distinct(images: Iterator[Captioned]) -> list[Captioned]:
    seen: dict[str, str] = {}
    found = []
    for image in images:
        if image.id in seen:
            raise UserError(
                f"{image.where} is {image.id} again, which is {seen[image.id]} already: an image "
                "must occur once."
            )
        seen[image.id] = image.where
        found.append(image)
    return found
