"""ModelNet as a data set, prepared or as commonly shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.data.shapes3d.augment import Shaping
from hmgr_jax.data.shapes3d.modelnet.joining import Folders, StoredSplit, find_parts, join_parts
from hmgr_jax.data.shapes3d.modelnet.prepared import (
    AGAIN,
    Manifest,
    PreparedObjects,
    object_file,
    read_manifest,
)
from hmgr_jax.data.shapes3d.sources import object_split
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError


def open_modelnet(
    root: str | Path,
    shaping: Shaping,
    folders: Folders | None = None,
    roles: Sequence[str] = ("train", "dev", "test"),
) -> DataSet:
    """Open a folder of ``hmgr_jax.prepare modelnet``, or folders of clouds, views and meshes.

    Objects are those of the clouds or, without clouds, of the meshes; views and meshes are found by
    the names ``class/object`` of ``id2file.json``. Every object is a row, labelled by its class.

    Raises:
        UserError: nothing is found, an object lacks a part, classes do not agree, or a file is
            damaged.
    """
    root, folders = Path(root), folders or Folders()
    if not root.is_dir():
        raise UserError(f"There is no folder {root}: give data.root the folder of ModelNet.")
    if not 0 < folders.dev < 1:
        raise UserError(
            f"data.objects.dev must be a share of train in (0, 1), got {folders.dev}: correct it."
        )
    needed = tuple(dict.fromkeys("train" if role == "dev" else role for role in roles))
    listed = read_manifest(root)
    if listed is not None:
        found, count = _prepared(root, listed, needed), len(listed.classes)
        files = [object_file(root, split, name) for split in found for name in found[split].names]
        digest = fingerprint(files, root)
    else:
        parts = find_parts(root, folders)
        found, count = join_parts(root, parts, folders, needed)
        digest = fingerprint(parts.files)
    splits = {role: _as_split(role, found, count, folders.dev, shaping) for role in roles}
    return DataSet(root.resolve().name, splits, Vocabulary(MARKS), digest)


def _as_split(
    role: str, found: Mapping[str, StoredSplit], count: int, dev: float, shaping: Shaping
) -> Split:
    split = found["test" if role == "test" else "train"]
    chosen = np.arange(len(split.names))
    if role != "test":
        held_out = _held_out(split.classes, dev)
        chosen = np.flatnonzero(held_out if role == "dev" else ~held_out)
        if not len(chosen):
            raise UserError(
                f"data.objects.dev={dev:g} leaves none of the {len(split.names)} objects of train "
                f"for {role}: {'raise' if role == 'dev' else 'lower'} it (0.5 is half of each "
                "class)."
            )
    names = [split.names[i] for i in chosen.tolist()]
    objects = split.objects.select(chosen)
    return object_split(role, objects, names, split.classes[chosen], count, shaping)


def _held_out(classes: np.ndarray, share: float) -> np.ndarray:
    """Mark about a ``share`` of each class, evenly spread, bool [n]."""
    found = np.zeros(len(classes), bool)
    for kind in np.unique(classes):
        own = np.flatnonzero(classes == kind)
        marks = np.floor((np.arange(len(own)) + 0.5) * share + 0.5)
        found[own[np.diff(marks, prepend=0.0) > 0]] = True
    return found


def _prepared(root: Path, listed: Manifest, needed: Sequence[str]) -> dict[str, StoredSplit]:
    found = {}
    number = {name: k for k, name in enumerate(listed.classes)}
    for split in needed:
        names = listed.names.get(split, ())
        if not names:
            raise UserError(
                f"{root} was prepared without objects of {split}: prepare a tree with "
                "class/train/ and class/test/."
            )
        classes = np.array([number[name.partition("/")[0]] for name in names])
        objects = PreparedObjects(root, split, names, listed.views)
        if missing := [path for path in objects.files if not path.is_file()]:
            raise UserError(
                f"{root} lacks {len(missing)} of the {len(names)} objects of {split} that its "
                f"manifest lists, first {missing[0]}: copy it again, or {AGAIN}"
            )
        found[split] = StoredSplit(names, classes, objects)
    return found
