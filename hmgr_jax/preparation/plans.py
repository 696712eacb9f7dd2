"""Make the plan of a command from its options."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmgr_jax.command import required
from hmgr_jax.data.pictures import patches
from hmgr_jax.data.pictures.decode import READER
from hmgr_jax.data.pictures.pca import Pca
from hmgr_jax.data.text.captioned import Captioned, by_split, first_captions
from hmgr_jax.data.text.captions_files import read_captions, read_karpathy
from hmgr_jax.errors import UserError
from hmgr_jax.files.manifest import ENCODER_PCA, GALLERY
from hmgr_jax.preparation.bottom_up import plan_bottom_up
from hmgr_jax.preparation.file_store import FileStore, NpyStore
from hmgr_jax.preparation.h5_store import H5Store
from hmgr_jax.preparation.msrvtt_captions import (
    HGR,
    hold_out,
    read_1ka,
    read_challenge,
    read_hgr,
    split_1ka,
)
from hmgr_jax.preparation.picture_store import ClipStore, FrameStore, PictureStore
from hmgr_jax.preparation.plan import Plan, identity
from hmgr_jax.preparation.scan_source import plan_scan
from hmgr_jax.preparation.stores import Store, plan_store

if TYPE_CHECKING:
    from hmgr_jax.interop.picture_encoder import Encoder

HDF5 = (".h5", ".hdf5", ".hdf")
FRAMES, FRAME_GRID = 20, 2
PLACES = (
    *("out", "source", "captions", "json", "csv", "names", "features", "pictures"),
    *("videos", "ids", "encoder", "pca"),
)
"""Options that name places; the key of a preparation does not depend on them."""


def scan(flags: argparse.Namespace) -> Plan:
    """The plan of ``prepare scan``."""
    splits = [name for name in (flags.splits or "").split(",") if name]
    return plan_scan(Path(required(flags, "source")), splits, flags.captions_per_image)


def bottom_up(flags: argparse.Namespace) -> Plan:
    """The plan of ``prepare bottom-up``."""
    files = [Path(name) for name in required(flags, "source")]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path} is no file: give --source the TSV files.")
    images, captions = read_captions(required(flags, "captions"))
    return plan_bottom_up(
        _splits(flags, images),
        files,
        kind=flags.key,
        regions=flags.regions,
        about=_about("bottom-up", flags, captions),
    )


def karpathy(flags: argparse.Namespace) -> Plan:
    """The plan of ``prepare karpathy``."""
    path = Path(required(flags, "json"))
    store = _store(flags, Path(required(flags, "features")), with_boxes=not flags.no_boxes)
    splits = _splits(flags, read_karpathy(path))
    about = _about("karpathy", flags, [path])
    return plan_store(splits, store, kind=flags.key, about=about, regions=flags.regions)


def folder(flags: argparse.Namespace) -> Plan:
    """The plan of ``prepare folder``."""
    _check_one(flags, "pictures", "features")
    if flags.features or flags.captions:
        images, captions = read_captions(required(flags, "captions"))
        splits = _splits(flags, images)
    else:
        splits, captions = {}, []
    about = _about("folder", flags, captions)
    store: Store
    if flags.pictures:
        if flags.regions:
            raise UserError("--regions is for --features: give a smaller --grid instead.")
        encoder, components, more = _encoder(flags, None, has_train=bool(splits))
        pictures = PictureStore(Path(flags.pictures), encoder, components)
        splits, about, store = splits or _gallery(pictures), about | more, pictures
    else:
        _refuse_encoder(flags, "--pictures")
        store = _store(flags, Path(flags.features), with_boxes=not flags.no_boxes)
    plan = plan_store(splits, store, kind=flags.key, about=about, regions=flags.regions)
    _tell_unused(store, sum(map(len, splits.values())))
    return plan


def _gallery(store: PictureStore) -> dict[str, list[Captioned]]:
    """All pictures of a store, without captions."""
    names = sorted({path.relative_to(store.path).as_posix() for path in store.ids.values()})
    return {GALLERY: [Captioned({"filename": n}, None, (), f"{store.path / n}") for n in names]}


def _encoder(
    flags: argparse.Namespace, grid: int | None, *, has_train: bool
) -> tuple[Encoder, int | None, dict[str, Any]]:
    """The encoder, the components of a PCA to fit, and what the key of the preparation says."""
    from hmgr_jax.evaluation import packed as packed_runs  # which loads JAX, as the next one
    from hmgr_jax.interop.picture_encoder import GRID, Encoder

    specification, pca = flags.encoder or patches.NAME, None
    components = int(flags.pca) if flags.pca and flags.pca.isdecimal() else None
    if flags.pca and components is None:
        packed = packed_runs.path_of(flags.pca)
        pca = packed_runs.pca_of(packed) if packed else Pca.read(flags.pca)
    elif components is not None and not has_train:
        raise UserError(
            f"--pca {components} is fitted to pictures with captions, and there are none: give "
            f"--pca the {ENCODER_PCA} of the data that a run was trained on, or a packed run."
        )
    encoder = Encoder.of(specification, flags.grid or grid or GRID, pca)
    if components is not None:
        if not 0 < components <= encoder.size:
            raise UserError(
                f"--pca is {components}, but a cell of {specification} has {encoder.size} numbers: "
                "give at most as many, or the file of a PCA."
            )
        encoder = encoder.with_pca(None, sqrt=encoder.network.positive)
    more = {"encoder": encoder.describe(), "pca": components, "reader": READER}
    return encoder, components, more


def _refuse_encoder(flags: argparse.Namespace, source: str) -> None:
    for name in ("encoder", "pca", "grid"):
        if getattr(flags, name):
            raise UserError(f"--{name} is for {source}: leave it out with --features.")


def msrvtt(flags: argparse.Namespace) -> Plan:
    """The plan of ``prepare msrvtt``."""
    _check_one(flags, "features", "videos")
    splits, captions = _msrvtt_splits(flags)
    kept = {name: first_captions(found, flags.captions_per_image) for name, found in splits.items()}
    frames = flags.frames or FRAMES
    store: Store
    if flags.videos:
        grid = FRAME_GRID if (flags.encoder or patches.NAME) == patches.NAME else 1
        encoder, components, more = _encoder(flags, grid, has_train="train" in kept)
        store = ClipStore(Path(flags.videos), frames, encoder, components)
    else:
        _refuse_encoder(flags, "--videos")
        more = {}
        store = FrameStore(_store(flags, Path(flags.features), with_boxes=False), frames)
    about = _about("msrvtt", flags, captions) | {"frames": frames} | more
    return plan_store(kept, store, kind=flags.key, about=about, visual="video")


def _msrvtt_splits(
    flags: argparse.Namespace,
) -> tuple[Mapping[str, Sequence[Captioned]], list[Path]]:
    """The videos by split, and the files that define the splits."""
    files = [Path(name) for name in flags.json or ()]
    if flags.names:
        if len(files) != 1 or flags.csv:
            raise UserError("--names goes with one --json, HGR's ref_captions.json: give both.")
        folder = Path(flags.names)
        videos = read_hgr(files[0], folder)
        files += [folder / name for name in HGR.values()]
    else:
        videos = read_challenge(files)
    if flags.csv:
        path = Path(flags.csv)
        return split_1ka(videos, read_1ka(path), flags.dev), [*files, path]
    if not videos:
        raise UserError("msrvtt takes its captions from --json, --csv or both: give one of them.")
    splits = by_split(videos)
    if "dev" not in splits:
        splits = hold_out(splits.pop("train", []), flags.dev) | splits
    elif flags.dev is not None:
        raise UserError(
            f"The files have {len(splits['dev'])} videos for dev, so leave --dev out; it is for "
            "1k-A and for files without any."
        )
    return splits, files


def _check_one(flags: argparse.Namespace, *names: str) -> None:
    """Check that exactly one of the options is given."""
    if sum(bool(getattr(flags, name)) for name in names) != 1:
        either = " or ".join(f"--{name}" for name in names)
        raise UserError(f"This takes either {either}: give one of them.")


def _tell_unused(store: Store, used: int) -> None:
    there = len(set(map(str, store.ids.values())))
    if used < there:
        warnings.warn(
            f"{there - used} of {there} files in {store.path} have no captions and are left out",
            RuntimeWarning,
            stacklevel=2,
        )


def _splits(
    flags: argparse.Namespace, images: Sequence[Captioned]
) -> Mapping[str, Sequence[Captioned]]:
    """Images by split, with the requested number of captions."""
    dev, test = getattr(flags, "dev", None), getattr(flags, "test", None)
    found = by_split(images, dev=dev, test=test, restval=flags.restval)
    return {
        name: first_captions(images, flags.captions_per_image) for name, images in found.items()
    }


def _store(flags: argparse.Namespace, path: Path, *, with_boxes: bool) -> Store:
    """The store of ``--features``, chosen by the kind of path."""
    if path.is_dir():
        return FileStore(path, flags.array, with_boxes=with_boxes)
    ids = Path(flags.ids) if flags.ids else None
    if path.suffix in HDF5:
        return H5Store(path, flags.array, ids, with_boxes=with_boxes)
    if path.suffix == ".npy":
        return NpyStore(path, ids, with_boxes=with_boxes)
    raise UserError(f"{path} is neither a folder nor a .npy or .h5: give --features one of them.")


def _about(command: str, flags: argparse.Namespace, captions: Sequence[Path]) -> dict[str, Any]:
    options = {name: value for name, value in vars(flags).items() if name not in PLACES}
    return {"command": command, "options": options, "captions": identity(captions)}
