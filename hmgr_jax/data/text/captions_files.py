"""Files of captions: Karpathy's or COCO's JSON, and tables as CSV or JSONL."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hmgr_jax.data.text.captioned import SPLITS, Captioned, distinct, file_names, read_split, tidy
from hmgr_jax.errors import UserError

IMAGE_COLUMNS = ("image", "filename", "file_name", "image_id")
CAPTION_COLUMNS = ("caption", "text", "sentence")


def read_captions(given: Sequence[str]) -> tuple[list[Captioned], list[Path]]:
    """The images of captions files, in their order, and the files.

    ``given`` are files, or ``SPLIT=FILE`` for a file of one split. Their endings tell what they
    are: .csv, .jsonl, or .json of Karpathy or of COCO.

    Raises:
        UserError: another ending, the first line that is not as expected, an image twice.
    """
    readers = {".json": read_json, ".csv": read_table, ".jsonl": read_table}
    images, paths = [], []
    for text in given:
        name, sign, rest = text.partition("=")
        split = SPLITS.get(name) if sign else None
        path = Path(rest if split else text)
        if path.suffix.lower() not in readers:
            raise UserError(
                f"{path} ends in {path.suffix!r} where .csv, .jsonl or .json (Karpathy's or COCO's)"
                " was expected: convert it."
            )
        found = readers[path.suffix.lower()](path)
        images += [_of_split(image, split) for image in found] if split else found
        paths.append(path)
    return distinct(images), paths


def _of_split(image: Captioned, split: str) -> Captioned:
    if image.split not in (None, split):
        raise UserError(
            f"{image.where} has {image.id} in the split {image.split} where --captions says "
            f"{split}: give the file without a split, or correct one of the two."
        )
    return replace(image, split=split)


def read_json(path: Path) -> list[Captioned]:
    """The images of a JSON of Karpathy, or of COCO, which has ``annotations``."""
    found = load_json(path, "an object with a list 'images'")
    return coco_images(path, found) if "annotations" in found else _karpathy_images(path, found)


def read_karpathy(path: Path) -> list[Captioned]:
    """The images of dataset_coco.json, dataset_flickr30k.json or dataset_flickr8k.json.

    The test images of COCO are all 5,000, which recipes know as ``testall``.
    """
    return _karpathy_images(path, load_json(path, "an object with a list 'images'"))


def load_json(path: Path, wanted: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        UserError: the file cannot be read, or holds something else than ``wanted``.
    """
    try:
        with path.open(encoding="utf-8") as file:
            found = json.load(file, object_hook=_only_raw)  # words alone would take a gigabyte
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the file.") from None
    except ValueError as error:
        raise UserError(
            f"{path} is no JSON ({error}) where {wanted} was expected: download it again."
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no object where {wanted} was expected: give another file.")
    return found


def _karpathy_images(path: Path, found: Mapping[str, Any]) -> list[Captioned]:
    images = found.get("images")
    if not isinstance(images, list):
        raise UserError(
            f"{path} is no dataset_X.json of Karpathy, an object with a list 'images': download it "
            "again."
        )
    return distinct(
        _karpathy_image(image, f"{path}, image {number}", found.get("dataset") == "coco")
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
    for where, row in table_rows(path, (IMAGE_COLUMNS, CAPTION_COLUMNS)):
        image = cell(row, IMAGE_COLUMNS, where)
        told = row.get("split")
        split = read_split(str(told).strip(), where) if told not in (None, "") else None
        if image not in first:
            first[image] = (where, split)
        elif first[image][1] != split:
            raise UserError(
                f"{where} puts {image} into the split {split} where {first[image][0]} says "
                f"{first[image][1]}: an image is of one split."
            )
        text = tidy(cell(row, CAPTION_COLUMNS, where), where)
        captions.setdefault(image, []).append(text)
    if not captions:
        raise UserError(f"{path} holds no captions: give a row a caption.")
    return [
        Captioned(file_names(image), first[image][1], found, first[image][0])
        for image, found in captions.items()
    ]


def cell(row: Mapping[str, Any], columns: Sequence[str], where: str) -> str:
    """The value of the first of ``columns`` that ``row`` has; refused where it is empty."""
    value = next((row[name] for name in columns if row.get(name) is not None), None)
    if value is None or not str(value).strip():
        raise UserError(
            f"{where} lacks {columns[0]!r}: every row names what it describes, and one caption."
        )
    return str(value).strip()


def table_rows(
    path: Path, wanted: Sequence[Sequence[str]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a table, each with what a person calls its place.

    ``wanted`` are the columns that a CSV must have: one of the names of each.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                yield from _csv(path, file, wanted)
            else:
                yield from _jsonl(path, file)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the file.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8.") from None


def _csv(
    path: Path, file: Any, wanted: Sequence[Sequence[str]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    table = csv.DictReader(file, strict=True)
    try:
        columns = [name.strip() for name in table.fieldnames or ()]
        table.fieldnames = columns
        for names in wanted:
            if not set(names) & set(columns):
                raise UserError(
                    f"{path}:1 has the columns {', '.join(columns) or 'none'} where "
                    f"{names[0]!r} was expected: name the columns "
                    f"{' and '.join(names[0] for names in wanted)} in the first line."
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
