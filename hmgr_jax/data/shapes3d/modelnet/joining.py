"""Clouds, views and meshes in separate folders, joined by the names of objects."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hmgr_jax.data.pictures.files import CORRUPT, first_names
from hmgr_jax.data.shapes3d.modelnet.clouds import Clouds, cloud_files, name_file, read_clouds
from hmgr_jax.data.shapes3d.modelnet.files import FiledObjects, ViewFolders, find_meshes
from hmgr_jax.data.shapes3d.modelnet.prepared import PreparedObjects
from hmgr_jax.errors import UserError

USUAL: Mapping[str, tuple[str, ...]] = {
    "clouds": ("modelnet*_hdf5_2048", "*hdf5*"),
    "pictures": ("*Images*", "*images*", "*views*"),
    "meshes": ("*Mesh*", "*mesh*"),
}
"""Common names of the folders in ``data.root``, tried in this order."""


@dataclass(frozen=True)
class Folders:
    """Folders relative to ``data.root``; an empty one is searched by its common names."""

    clouds: str = ""
    pictures: str = ""
    meshes: str = ""
    corrupt: str = "refuse"
    """``skip``: objects that lack a part are left out with a warning."""
    dev: float = 0.05
    """Share of train that becomes dev, spread evenly over each class: ModelNet has no dev."""


class StoredSplit(NamedTuple):
    """A stored split, before dev is taken from train."""

    names: Sequence[str]
    classes: np.ndarray
    objects: FiledObjects | PreparedObjects


@dataclass(frozen=True)
class Parts:
    """The folders found."""

    clouds: Path | None = None
    pictures: ViewFolders | None = None
    meshes: Mapping[str, Mapping[str, Path]] | None = None
    files: list[Path] = field(default_factory=list)
    """For the fingerprint."""


def find_parts(root: Path, given: Folders) -> Parts:
    """Find the folders in ``root``, which may be the folder of clouds itself.

    Raises:
        UserError: there is none, a named one is missing, or several have a common name.
    """
    if given.corrupt not in CORRUPT:
        raise UserError(f"data.corrupt is one of {', '.join(CORRUPT)}, not {given.corrupt!r}.")
    folders = {kind: _folder(root, kind, getattr(given, kind)) for kind in USUAL}
    if cloud_files(root, "train") or cloud_files(root, "test"):
        folders["clouds"] = root
    clouds, pictures, meshes = (folders[kind] for kind in USUAL)
    found = find_meshes(meshes) if meshes else None
    files = [p for split in ("train", "test") for p in cloud_files(clouds, split)] if clouds else []
    files += [names for path in files if (names := name_file(path))]
    if not clouds and not found:
        if next(root.glob("*/train/*.off"), None):
            raise UserError(
                f"{root} holds OFF files, which must be prepared: run python -m hmgr_jax.prepare "
                f"modelnet --source {root} --out DIR and give data.root DIR."
            )
        raise UserError(
            f"{root} holds neither files of hmgr_jax.prepare modelnet nor point clouds "
            "(modelnet40_ply_hdf5_2048) nor meshes (ModelNet40_Mesh/class/train/object.npz): give "
            "data.root such a folder."
        )
    for of_split in (found or {}).values():
        files += of_split.values()
    return Parts(clouds, ViewFolders(pictures) if pictures else None, found, files)


def _folder(root: Path, kind: str, given: str) -> Path | None:
    if given:
        if not (root / given).is_dir():
            raise UserError(
                f"There is no folder {root / given}, which data.objects.{kind} names: correct it."
            )
        return root / given
    for pattern in USUAL[kind]:
        found = sorted(path for path in root.glob(pattern) if path.is_dir())
        if len(found) > 1:
            raise UserError(
                f"{root} holds {found[0].name} and {found[1].name}: name one of them as "
                f"data.objects.{kind}."
            )
        if found:
            return found[0]
    return None


def join_parts(
    root: Path, parts: Parts, folders: Folders, needed: Sequence[str]
) -> tuple[dict[str, StoredSplit], int]:
    """Join the stored splits ``needed``, and count their classes.

    Raises:
        UserError: as `hmgr_jax.data.shapes3d.modelnet.open.open_modelnet`.
    """
    if parts.clouds:
        clouds = {split: read_clouds(parts.clouds, split) for split in needed}
        numbers = _numbered(parts.clouds, clouds)
    else:
        assert parts.meshes is not None  # `find_parts` demands one of them
        clouds = {}
        kinds = sorted({n.partition("/")[0] for of in parts.meshes.values() for n in of})
        numbers = {kind: k for k, kind in enumerate(kinds)}
    found = {}
    for split in needed:
        names, classes, points = _listed(root, split, clouds.get(split), parts, numbers)
        whole = _whole(names, split, parts, folders)
        meshes = None if parts.meshes is None else parts.meshes.get(split, {})
        kept = [names[i] for i in whole.tolist()]
        objects = FiledObjects(
            kept,
            views=parts.pictures,
            clouds=None if points is None else points[whole],
            meshes=meshes,
        )
        found[split] = StoredSplit(kept, classes[whole], objects)
    largest = max(int(of.classes.max()) for of in found.values())
    return found, max(len(numbers), largest + 1)


def _numbered(folder: Path, clouds: Mapping[str, Clouds]) -> dict[str, int]:
    """{class: its label}, by the names and labels of the clouds."""
    found: dict[str, int] = {}
    for of in clouds.values():
        for name, label in zip(of.names, of.labels.tolist(), strict=False):
            kind = name.partition("/")[0]
            if found.setdefault(kind, label) != label:
                raise UserError(
                    f"{folder} has label {label} for {name} but {found[kind]} for other objects of "
                    f"{kind}: copy the clouds and their id2file.json again."
                )
    if len(set(found.values())) < len(found):
        raise UserError(
            f"{folder} has the same label for several of {', '.join(sorted(found))}: copy the "
            "clouds and their id2file.json again."
        )
    return found


def _listed(
    root: Path, split: str, clouds: Clouds | None, parts: Parts, numbers: Mapping[str, int]
) -> tuple[Sequence[str], np.ndarray, np.ndarray | None]:
    """(names, classes, clouds) of all objects of a split."""
    if clouds is None:
        names = list((parts.meshes or {}).get(split, {}))
        if not names:
            raise UserError(f"{root} holds no mesh class/{split}/object.npz: copy the data again.")
        return names, np.array([numbers[n.partition("/")[0]] for n in names]), None
    names = list(clouds.names)
    if len(names) != len(clouds.labels):
        if parts.pictures or parts.meshes:
            raise UserError(
                f"{parts.clouds} lacks id2file.json files of {split}, which name the views and "
                "meshes of a cloud: copy them beside the .h5 files."
            )
        names = [f"{label}/{split}_{i:05d}" for i, label in enumerate(clouds.labels.tolist())]
    return names, clouds.labels, clouds.points


def _whole(names: Sequence[str], split: str, parts: Parts, folders: Folders) -> np.ndarray:
    """Indices of objects with all parts, int [n]."""
    tests: list[tuple[str, Callable[[str], bool]]] = []
    if parts.pictures:
        tests.append(("folder of views", parts.pictures.has))
    if parts.meshes is not None:
        tests.append(("mesh", parts.meshes.get(split, {}).__contains__))
    lacking = [next((what for what, has in tests if not has(n)), "") for n in names]
    bad = [name for name, what in zip(names, lacking, strict=True) if what]
    kept = np.flatnonzero([not what for what in lacking])
    if not bad:
        return kept
    what = next(what for what in lacking if what)
    if folders.corrupt == "refuse" or not len(kept):
        raise UserError(
            f"There is no {what} of {bad[0]} ({len(bad)} of the {len(names)} objects of {split} "
            "lack something): put it there, correct data.objects, or leave such objects out by "
            "data.corrupt=skip."
        )
    warnings.warn(
        f"{len(bad)} of {len(names)} objects of {split} lack views or a mesh and are left out: "
        f"{first_names(bad)}",
        RuntimeWarning,
        stacklevel=2,
    )
    return kept
