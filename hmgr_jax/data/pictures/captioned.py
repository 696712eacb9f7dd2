"""Folders of pictures with captions in Karpathy's or COCO's JSON, in a table, or prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from hmgr_jax.data.pictures.files import PictureFolder
from hmgr_jax.data.pictures.sets import ListedPicture, Settings, picture_set
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.captioned import (
    Captioned,
    by_split,
    check_distinct,
    file_names,
    first_captions,
)
from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.data.text.captions_files import LARGEST_ID, read_captions
from hmgr_jax.errors import UserError

SPLIT = "{split}"


def open_pictures(
    root: str | Path,
    *,
    splits: Mapping[str, str],
    captions: str = "",
    pictures: str = "",
    captions_per_image: int | None = None,
    restval: bool = True,
    settings: Settings | None = None,
) -> DataSet:
    """Open pictures with captions.

    Args:
        root: the folder that ``captions`` and ``pictures`` are relative to.
        splits: {train, dev, test: names in the files}.
        captions: a file that names each picture's split (Karpathy's dataset_X.json, a CSV or JSONL
            with a column ``split``), or one per split with ``{split}`` in its name, as COCO's
            ``captions_{split}.json``. Empty: ``{split}_caps.txt`` and ``{split}_ids.txt`` of
            ``hmgr_jax.prepare folder``, with file names as ids.
        pictures: the folder of the pictures, which may lie in subfolders.
        captions_per_image: use the first captions of each picture, as many; None: all.
        restval: train on Karpathy's "restval" too.
        settings: how pictures and captions are read.

    Raises:
        UserError: files are missing or malformed, or a picture is missing, damaged, or in two
            splits.
    """
    root = Path(root)
    folder = PictureFolder(root / pictures)
    found, files = _read(root, captions, splits, restval)
    lists = {
        role: [_listed(image, folder) for image in first_captions(images, captions_per_image)]
        for role, images in found.items()
    }
    return picture_set(root, lists, files, settings or Settings())


def _read(
    root: Path, captions: str, splits: Mapping[str, str], restval: bool
) -> tuple[dict[str, list[Captioned]], list[Path]]:
    """Pictures of every role, and the files that list them."""
    files: list[Path] = []
    if not captions or SPLIT in captions:
        found = {}
        for role, name in splits.items():
            if captions:
                found[role], read = read_captions([str(root / captions.replace(SPLIT, name))])
            else:
                found[role], read = read_prepared(root, name)
            files += read
        return found, files
    images, files = read_captions([str(root / captions)])
    if all(image.split is None for image in images):
        raise UserError(
            f"{root / captions} does not name the split of its pictures: give one file per split "
            f"with {SPLIT} in data.captions, as captions_{SPLIT}.json."
        )
    known = by_split(images, restval=restval)
    for role, name in splits.items():
        if name not in known:
            raise UserError(
                f"{root / captions} has the splits {', '.join(known)} but no {name!r}: set "
                f"data.splits.{role} to one of them."
            )
    return {role: known[name] for role, name in splits.items()}, files


def read_prepared(root: Path, name: str) -> tuple[list[Captioned], list[Path]]:
    """Read the pictures of a split of a prepared folder, and list its files.

    Raises:
        UserError: a file is missing or malformed, or their lines do not agree.
    """
    ids_file, captions_file = root / f"{name}_ids.txt", root / f"{name}_caps.txt"
    files = [ids_file, captions_file]
    if not ids_file.is_file():
        raise UserError(
            f"There is no {ids_file}: give data.captions (a file, or one per split), or as "
            "data.root a folder that hmgr_jax.prepare folder made."
        )
    ids, captions = read_lines(ids_file), read_lines(captions_file)
    of_caption = root / f"{name}_cap_ids.txt"
    if of_caption.is_file():
        files.append(of_caption)
        owners = read_lines(of_caption)
    else:
        each, rest = divmod(len(captions), len(ids))
        if rest or not each:
            raise UserError(
                f"{captions_file} has {len(captions)} captions for the {len(ids)} pictures of "
                f"{ids_file}, not a multiple: one of the two is cut short, so copy both again."
            )
        owners = [image for image in ids for _ in range(each)]
    if len(owners) != len(captions):
        raise UserError(
            f"{of_caption} has {len(owners)} lines but {captions_file} has {len(captions)}: give "
            "one id per caption."
        )
    return _joined(ids, owners, captions, ids_file, of_caption), files


def _joined(
    ids: Sequence[str], owners: Sequence[str], captions: Sequence[str], at: Path, of_caption: Path
) -> list[Captioned]:
    starts = [i for i, name in enumerate(owners) if not i or name != owners[i - 1]]
    if [owners[i] for i in starts] != list(ids):
        raise UserError(
            f"{of_caption} does not name the pictures of {at} in their order, each at least once: "
            "prepare the folder again."
        )
    return check_distinct(
        Captioned(file_names(name), None, captions[first:last], f"{at}:{number}")
        for number, (name, (first, last)) in enumerate(
            zip(ids, pairwise([*starts, len(owners)]), strict=True), start=1
        )
    )


def _listed(image: Captioned, folder: PictureFolder) -> ListedPicture:
    number = image.names["cocoid"] if "padded" in image.names else ""
    number = number if len(number) < len(str(LARGEST_ID)) else ""
    return ListedPicture(
        image.id,
        folder.find(image.id),
        image.captions,
        image.where,
        number=int(number) if number else None,
        caption_numbers=image.caption_ids,
    )
