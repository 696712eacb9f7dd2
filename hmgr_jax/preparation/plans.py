"""From the flags of a command to its plan."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError
from hmgr_jax.preparation.bottom_up import plan_bottom_up
from hmgr_jax.preparation.captioned import Captioned, by_split, first_captions
from hmgr_jax.preparation.captions_files import read_captions, read_karpathy
from hmgr_jax.preparation.file_store import FileStore
from hmgr_jax.preparation.npy_store import NpyStore
from hmgr_jax.preparation.picture_store import PictureStore
from hmgr_jax.preparation.plan import Plan, identity
from hmgr_jax.preparation.scan_source import plan_scan
from hmgr_jax.preparation.stores import Store, plan_store

GRID = 6
HDF5 = (".h5", ".hdf5", ".hdf")
PLACES = ("help", "out", "source", "captions", "json", "features", "pictures", "ids")
"""Flags that say where things lie: a preparation is the same wherever they do."""


def scan(flags: argparse.Namespace) -> Plan:
    """Of ``prepare scan``."""
    splits = [name for name in (flags.splits or "").split(",") if name]
    return plan_scan(Path(demand(flags, "source")), splits, flags.captions_per_image)


def bottom_up(flags: argparse.Namespace) -> Plan:
    """Of ``prepare bottom-up``."""
    files = [Path(name) for name in demand(flags, "source")]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path} is no file: give --source the TSV files.")
    captions = Path(demand(flags, "captions"))
    splits = _splits(flags, read_captions(captions))
    return plan_bottom_up(
        splits,
        files,
        kind=flags.key,
        regions=flags.regions,
        about=_about("bottom-up", flags, captions),
    )


def karpathy(flags: argparse.Namespace) -> Plan:
    """Of ``prepare karpathy``."""
    path = Path(demand(flags, "json"))
    store = _store(flags, Path(demand(flags, "features")))
    splits = _splits(flags, read_karpathy(path))
    return plan_store(splits, store, kind=flags.key, about=_about("karpathy", flags, path))


def folder(flags: argparse.Namespace) -> Plan:
    """Of ``prepare folder``."""
    if bool(flags.pictures) == bool(flags.features):
        raise UserError("folder takes either --pictures or --features: give one of them.")
    captions = Path(demand(flags, "captions"))
    splits = _splits(flags, read_captions(captions))
    store: Store
    if flags.pictures:
        store = PictureStore(Path(flags.pictures), flags.grid or GRID)
    else:
        store = _store(flags, Path(flags.features))
    plan = plan_store(splits, store, kind=flags.key, about=_about("folder", flags, captions))
    _tell_unused(store, sum(map(len, splits.values())))
    return plan


def _tell_unused(store: Store, used: int) -> None:
    there = len(set(map(str, store.ids.values())))
    if used < there:
        warnings.warn(
            f"{there - used} of {there} files in {store.path} have no captions and are left out",
            RuntimeWarning,
            stacklevel=2,
        )


def demand(flags: argparse.Namespace, name: str) -> Any:
    """The value of a flag that has to be given."""
    value = getattr(flags, name)
    if not value:
        raise UserError(f"--{name} is missing: give it; --help shows the command line.")
    return value


def _splits(
    flags: argparse.Namespace, images: Sequence[Captioned]
) -> Mapping[str, Sequence[Captioned]]:
    """Images by split, with so many captions as are wanted."""
    dev, test = getattr(flags, "dev", 0.0), getattr(flags, "test", 0.0)
    found = by_split(images, dev=dev, test=test, restval=flags.restval)
    return {
        name: first_captions(images, flags.captions_per_image) for name, images in found.items()
    }


def _store(flags: argparse.Namespace, path: Path) -> Store:
    """The store of ``--features``, by what the path is."""
    with_boxes = not flags.no_boxes
    if path.is_dir():
        return FileStore(path, flags.array, with_boxes=with_boxes)
    if path.suffix in HDF5:
        from hmgr_jax.preparation.h5_store import H5Store

        return H5Store(path, flags.array, with_boxes=with_boxes)
    if path.suffix == ".npy":
        return NpyStore(path, Path(flags.ids) if flags.ids else None, with_boxes=with_boxes)
    raise UserError(f"{path} is neither a folder nor a .npy or .h5: give --features one of them.")


def _about(command: str, flags: argparse.Namespace, captions: Path) -> dict[str, Any]:
    options = {name: value for name, value in vars(flags).items() if name not in PLACES}
    return {"command": command, "options": options, "captions": identity([captions])}
