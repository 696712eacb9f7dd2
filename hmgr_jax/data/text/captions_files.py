"""Files of captions: JSON of Karpathy or COCO, and tables as CSV or JSONL."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hmgr_jax.data.text.captioned import (
    SPLITS,
    Captioned,
    check_distinct,
    clean_caption,
    clean_captions,
    clean_name,
    coco_names,
    file_names,
    read_split,
)
from hmgr_jax.errors import UserError, reason
from hmgr_jax.files.reading import parse_json, read_json

IMAGE_COLUMNS = ("image", "filename", "file_name", "image_id")
CAPTION_COLUMNS = ("caption", "text", "sentence")
COCO = "COCO's captions"
LARGEST_ID = 2**63
"""Ids of images and captions that are larger do not fit in int64, and are kept as names only."""


def read_captions(given: Sequence[str]) -> tuple[list[Captioned], list[Path]]:
    """Read the images of captions files, in their order, and list the files.

    ``given`` are files, or ``SPLIT=FILE`` for a file of one split: .csv, .jsonl, or .json of
    Karpathy or COCO.

    Raises:
        UserError: another ending, a malformed line, or an image twice; names the first.
    """
    readers = {".json": _json_images, ".csv": read_table, ".jsonl": read_table}
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
        images += [_with_split(image, split) for image in found] if split else found
        paths.append(path)
    return check_distinct(images), paths


def _with_split(image: Captioned, split: str) -> Captioned:
    if image.split not in (None, split):
        raise UserError(
            f"{image.where} has {image.id} in the split {image.split} where --captions says "
            f"{split}: give the file without a split, or correct one of the two."
        )
    return replace(image, split=split)


# --- JSON of Karpathy and COCO ------------------------------------------------------------------


def load_json(path: Path, wanted: str) -> dict[str, Any]:
    """Read the object of a JSON file; of each sentence only its "raw" text is kept.

    Raises:
        UserError: the file cannot be read, or does not hold what ``wanted`` describes.
    """
    found = read_json(path, object_hook=_raw_only)
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no object where {wanted} was expected: give another file.")
    return found


def json_list(path: Path, found: Any, key: str, source: str) -> list[Any]:
    """Return the list ``key`` of a file of ``source``; ``UserError`` if missing or empty."""
    listed = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path} holds no list {key!r} as {source} has: download it again.")
    return listed


def json_field(entry: Any, key: str, where: str, source: str) -> Any:
    """Return the field ``key`` of an entry at ``where``; ``UserError`` if it is missing."""
    if not isinstance(entry, Mapping) or entry.get(key) is None:
        raise UserError(
            f"{where} (counted from 0) lacks {key!r}, which {source} has: download the file again."
        )
    return entry[key]


def _raw_only(found: dict[str, Any]) -> Any:
    """Drop the tokens of sentences, which would take a gigabyte for COCO."""
    return found["raw"] if "raw" in found and "filename" not in found else found


def _json_images(path: Path) -> list[Captioned]:
    found = load_json(path, "an object with a list 'images'")
    return coco_images(path, found) if "annotations" in found else _karpathy_images(path, found)


def read_karpathy(path: Path) -> list[Captioned]:
    """Read the images of dataset_coco.json, dataset_flickr30k.json or dataset_flickr8k.json.

    The 5,000 test images of COCO are the split ``testall``.
    """
    return _karpathy_images(path, load_json(path, "an object with a list 'images'"))


def _karpathy_images(path: Path, found: Mapping[str, Any]) -> list[Captioned]:
    images = json_list(path, found, "images", "Karpathy's dataset_X.json")
    return check_distinct(
        _karpathy_image(image, f"{path}, image {number}", found.get("dataset") == "coco")
        for number, image in enumerate(images)
    )


def _karpathy_image(image: Any, where: str, coco: bool) -> Captioned:
    name, split, sentences = (
        json_field(image, key, where, "Karpathy's dataset_X.json")
        for key in ("filename", "split", "sentences")
    )
    names = file_names(clean_name(name, where))
    if image.get("cocoid") not in (None, ""):
        names |= coco_names(clean_name(image["cocoid"], where))
    if image.get("imgid") not in (None, ""):
        names["imgid"] = clean_name(image["imgid"], where)
    if not sentences:
        raise UserError(f"{where} ({names['filename']}) has no sentences: remove the image.")
    if not isinstance(sentences, list):
        sentences = [sentences]
    captions = [clean_caption(raw, f"{where}, sentence {k}") for k, raw in enumerate(sentences)]
    split = read_split(clean_name(split, where), where)
    return Captioned(names, "testall" if coco and split == "test" else split, captions, where)


def coco_images(path: Path, found: Mapping[str, Any]) -> list[Captioned]:
    """Read the images of COCO's ``captions_X.json``, in its order; it does not name their split.

    Raises:
        UserError: an id occurs twice, an annotation is of an unknown image, a caption is empty, or
            an image has none; names the first.
    """
    names: dict[str, tuple[str, str]] = {}
    for number, image in enumerate(json_list(path, found, "images", COCO)):
        where = f"{path}, image {number}"
        entry = (clean_name(json_field(image, "file_name", where, COCO), where), where)
        known = names.setdefault(clean_name(json_field(image, "id", where, COCO), where), entry)
        if known is not entry:
            raise UserError(
                f"{where} repeats the id {image['id']} of {known[1]}: remove one of the two."
            )
    captions: dict[str, list[str]] = {image: [] for image in names}
    ids: dict[str, list[int]] = {image: [] for image in names}
    seen: dict[str, str] = {}
    for number, annotation in enumerate(json_list(path, found, "annotations", COCO)):
        where = f"{path}, annotation {number}"
        image = clean_name(json_field(annotation, "image_id", where, COCO), where)
        if image not in captions:
            raise UserError(
                f"{where} is of image {image}, which is not among the {len(names)} images of the "
                "file: give the file that lists it, or remove the annotation."
            )
        own = annotation.get("id")
        if own is not None and (first := seen.setdefault(clean_name(own, where), where)) != where:
            raise UserError(f"{where} repeats the id {own} of {first}: remove one of the two.")
        captions[image].append(clean_caption(json_field(annotation, "caption", where, COCO), where))
        if isinstance(own, int) and own < LARGEST_ID:
            ids[image].append(own)
    images = []
    for image, (name, where) in names.items():
        texts, numbers = captions[image], ids[image]
        if not texts:
            raise UserError(f"{where} ({name}) has no annotation: caption the image or remove it.")
        whole = numbers if len(numbers) == len(texts) else []
        images.append(Captioned(file_names(name) | coco_names(image), None, texts, where, whole))
    return check_distinct(images)


# --- tables -------------------------------------------------------------------------------------


def read_table(path: Path) -> list[Captioned]:
    """Read a table with one caption per row; rows of an image need not be adjacent."""
    captions: dict[str, list[str]] = {}
    first: dict[str, tuple[str, str | None]] = {}
    naming: set[str] | None = None  # columns of which every value is the name of a split
    for where, row in table_rows(path, (IMAGE_COLUMNS, CAPTION_COLUMNS)):
        image = clean_name(cell(row, IMAGE_COLUMNS, where), where)
        name = row.get("split")
        splits = {key for key, value in row.items() if str(value).strip().lower() in SPLITS}
        splits -= {*IMAGE_COLUMNS, *CAPTION_COLUMNS}
        naming = splits if naming is None else naming & splits
        split = None if name in (None, "") else read_split(clean_name(name, where), where)
        if image not in first:
            first[image] = (where, split)
        elif first[image][1] != split:
            raise UserError(
                f"{where} puts {image} into the split {split} where {first[image][0]} says "
                f"{first[image][1]}: give an image one split."
            )
        texts = clean_captions(cell(row, CAPTION_COLUMNS, where), where)
        captions.setdefault(image, []).extend(texts)
    if not captions:
        raise UserError(f"{path} holds no captions: give one per row.")
    if naming and all(split is None for _, split in first.values()):
        raise UserError(
            f"{path} names splits in the column {min(naming)!r}, which is not read: call it split, "
            "or remove it."
        )
    return [
        Captioned(file_names(image), first[image][1], found, first[image][0])
        for image, found in captions.items()
    ]


def cell(row: Mapping[str, Any], columns: Sequence[str], where: str) -> Any:
    """Value of the first of ``columns`` that ``row`` has; ``UserError`` if it is empty."""
    value = next((row[name] for name in columns if row.get(name) is not None), None)
    if value is None or not str(value).strip() or value == []:
        raise UserError(
            f"{where} lacks {columns[0]!r}: give every row an image or video and a caption."
        )
    return value


def table_rows(
    path: Path, wanted: Sequence[Sequence[str]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (file and line, row) of a table; a CSV must have a column of each of ``wanted``.

    Names of columns are in lower case. A cell of a CSV ends on its line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = ((f"{path}:{i}", line) for i, line in enumerate(file, 1) if line.strip())
            rows = _csv(path, lines, wanted) if path.suffix.lower() == ".csv" else _jsonl(lines)
            for where, row in rows:
                row = [(name.strip().lower(), value) for name, value in row if name.strip()]
                named = dict(row)
                if len(named) < len(row):
                    raise UserError(
                        f"{where} has two columns of the same name among "
                        f"{', '.join(name for name, _ in row)}: rename one (case does not count)."
                    )
                yield where, named
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): put the file there.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8.") from None


def _csv(
    path: Path, lines: Iterator[tuple[str, str]], wanted: Sequence[Sequence[str]]
) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    columns = _cells(*next(lines, (f"{path}:1", "\n")))
    for names in wanted:
        if not set(names) & {name.strip().lower() for name in columns}:
            raise UserError(
                f"{path}:1 has the columns {', '.join(columns) or 'none'} where "
                f"{names[0]!r} was expected: name the columns "
                f"{' and '.join(names[0] for names in wanted)} in the first line."
            )
    for where, line in lines:
        cells = _cells(where, line)
        if len(cells) > len(columns):
            raise UserError(
                f"{where} has more cells than the {len(columns)} columns: put "
                "captions with commas in double quotes."
            )
        yield where, list(zip(columns, cells, strict=False))


def _cells(where: str, line: str) -> list[str]:
    """Split a line of a CSV by itself, so that a quote left open cannot take in lines below."""
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise UserError(
            f"{where} is not CSV ({error}): close its quotes on the line and double those inside a "
            "cell; captions with line breaks are read from .jsonl."
        ) from None


def _jsonl(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    for where, line in lines:
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{where} is not JSON ({reason(error)}): correct the line.") from None
        if not isinstance(row, dict):
            raise UserError(f"{where} is not an object with image and caption: correct the line.")
        yield where, list(row.items())
