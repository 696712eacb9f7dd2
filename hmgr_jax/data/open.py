"""Open the data set that a configuration describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hmgr_jax.data.banks import vqa_layout
from hmgr_jax.data.features.sets import Layout, open_features
from hmgr_jax.data.generated.solids.open import Solids, open_solids
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.data.generated.worlds.clips import open_clips
from hmgr_jax.data.generated.worlds.questions import Worlds, open_questions
from hmgr_jax.data.pictures.captioned import open_pictures
from hmgr_jax.data.pictures.coco_extras import with_numbers, with_objects
from hmgr_jax.data.pictures.cub import open_cub
from hmgr_jax.data.pictures.pixels import Augmentation
from hmgr_jax.data.pictures.sets import Settings
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.regions.scan_files import CAPTIONS
from hmgr_jax.data.shapes3d.augment import Shaping
from hmgr_jax.data.shapes3d.modelnet.joining import Folders
from hmgr_jax.data.shapes3d.modelnet.open import open_modelnet
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.captions import captions_of, warn_cut, warn_unknown
from hmgr_jax.data.text.pieces import Pieces
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.data.vqa.open import open_vqa
from hmgr_jax.data.words import more_captions
from hmgr_jax.errors import UserError

Roles = Sequence[str]


class Source(NamedTuple):
    """A value of ``data.source``."""

    open: Callable[[Any, Roles, Vocabulary | None], DataSet]
    """Opens the splits (train, dev, test) of ``config.data``; a given vocabulary is kept."""
    root: str = ""
    """Description of ``data.root`` for error messages; empty for generated data."""


def open_data(
    data: Any, vocabulary: Vocabulary | None = None, roles: Roles = ("train", "dev", "test")
) -> DataSet:
    """Open the data set that ``config.data`` describes.

    Args:
        data: the ``data`` part of a configuration.
        vocabulary: that of a checkpoint; otherwise ``data.vocabulary`` is loaded or one is built.
        roles: the splits to open, of train, dev and test.

    Raises:
        UserError: files are missing or malformed.
    """
    if vocabulary is None and data.get("pieces"):
        vocabulary = Pieces.load(data.pieces)
    if data.source not in SOURCES:
        raise UserError(f"data.source is one of {', '.join(SOURCES)}, not {data.source!r}.")
    source = SOURCES[data.source]
    if not data.root and (wanted := missing_root(data, roles)):
        raise UserError(wanted)
    opened = source.open(data, roles, vocabulary)
    captions = captions_of(opened.splits)
    warn_cut(captions)
    warn_unknown(captions)
    return opened


def missing_root(data: Any, roles: Roles = ("train", "dev", "test")) -> str:
    """Which data is wanted, if ``data.root`` is empty or does not exist; empty if it is there.

    The folder of a TFDS name is not looked for.
    """
    root = SOURCES[data.source].root if data.source in SOURCES else ""
    if not root or (data.root and (data.source == "tfds" or Path(data.root).exists())):
        return ""
    texts = data.captions or CAPTIONS
    names = [data.splits[role] for role in roles]
    files = [f for n in names for f in (f"{n}_ims.npy", texts.replace("{split}", n))]
    found = f"data.root is {data.root}, which does not exist" if data.root else "data.root is empty"
    return f"{found}: give {root.format(files=', '.join(files))}, as --config.data.root=FOLDER."


# --- openers, a source each ---------------------------------------------------------------------


def _scan(data: Any, roles: Roles, vocabulary: Vocabulary | None) -> DataSet:
    given = {"captions": data.captions} if data.captions else {}
    return open_scan(data.root, **given, **_scan_options(data, roles, vocabulary))


def _array_record(data: Any, roles: Roles, vocabulary: Vocabulary | None) -> DataSet:
    from hmgr_jax.data.records.open import open_array_record  # imports TFDS

    _check_own_captions(data)
    return open_array_record(data.root, **_scan_options(data, roles, vocabulary))


def _tfds(data: Any, roles: Roles, vocabulary: Vocabulary | None) -> DataSet:
    from hmgr_jax.data.records.open import open_tfds  # imports TFDS

    _check_own_captions(data)
    return open_tfds(data.root, data.tfds_dir, **_scan_options(data, roles, vocabulary))


def _check_own_captions(data: Any) -> None:
    if data.captions:
        raise UserError(
            f"data.captions names {data.captions}, but records hold their own captions: leave it "
            "empty, or train on the SCAN folder that they were made of."
        )


def _scan_options(data: Any, roles: Roles, vocabulary: Vocabulary | None) -> dict[str, Any]:
    """Options of `open_scan`."""
    known = _known_words(data, vocabulary)
    return {
        "vocabulary": known,
        "captions_per_image": data.captions_per_image or None,
        "vocabulary_captions": {} if known else more_captions(data),
        "max_words": data.max_words,
        "splits": {role: data.splits[role] for role in roles},
        "visual": _visual(data),
    }


def _pictures(data: Any, roles: Roles, vocabulary: Vocabulary | None) -> DataSet:
    opened = open_pictures(
        data.root,
        splits={role: data.splits[role] for role in roles},
        captions=data.captions,
        pictures=data.pictures,
        captions_per_image=data.captions_per_image or None,
        restval=data.restval,
        settings=_picture_settings(data, vocabulary),
    )
    if data.numbered:
        opened = with_numbers(opened, Path(data.root, data.numbered))
    return with_objects(opened, Path(data.root, data.instances)) if data.instances else opened


def _cub(data: Any, roles: Roles, vocabulary: Vocabulary | None) -> DataSet:
    return open_cub(
        data.root,
        splits=dict(data.splits),
        roles=roles,
        pictures=data.pictures,
        captions_per_image=data.captions_per_image or None,
        settings=_picture_settings(data, vocabulary),
    )


def _picture_settings(data: Any, vocabulary: Vocabulary | None) -> Settings:
    known = _known_words(data, vocabulary)
    if _visual(data) != "image":
        raise UserError(f"Pictures are images: leave data.visual, {data.visual!r}, out.")
    return Settings(
        augmentation=augmentation_of(data),
        corrupt=data.corrupt,
        max_words=data.max_words,
        vocabulary=known,
        vocabulary_captions={} if known else more_captions(data),
        threads=data.threads,
    )


def _features(data: Any, roles: Roles, vocabulary: Vocabulary | None) -> DataSet:
    layout = Layout(**data.features.to_dict())
    return open_features(data.root, roles=roles, splits=dict(data.splits), layout=layout)


def _modelnet(data: Any, roles: Roles, vocabulary: Vocabulary | None) -> DataSet:
    named = {name: data.objects[name] for name in ("clouds", "pictures", "meshes", "dev")}
    folders = Folders(**named, corrupt=data.corrupt)
    return open_modelnet(data.root, shaping_of(data), folders, roles)


def _worlds(data: Any, roles: Roles, vocabulary: Vocabulary | None) -> DataSet:
    if _visual(data) != "image":
        raise UserError(f"Generated worlds hold images: leave data.visual, {data.visual!r}, out.")
    given = data.worlds.to_dict()
    bank = given.pop("told", "")
    augmentation = augmentation_of(data) if given.get("pictures") else None
    given |= {"bank": bank, "augmentation": augmentation, "max_words": data.max_words}
    return open_worlds(**given, roles=roles, known=vocabulary)


SOURCES: dict[str, Source] = {
    "scan": Source(_scan, "the folder that holds {files}"),
    "array_record": Source(_array_record, "the folder that hmgr_jax.prepare array-record made"),
    "tfds": Source(_tfds, "a dataset's folder, or name/config:version as it lies in data.tfds_dir"),
    "pictures": Source(
        _pictures, "the folder from which data.captions and data.pictures are named"
    ),
    "cub": Source(_cub, "the folder that holds CUB_200_2011 and cvpr2016_cub"),
    "features": Source(_features, "the file (.mat, .npz, .h5) or the folder of a feature set"),
    "modelnet": Source(
        _modelnet, "the folder that hmgr_jax.prepare modelnet made, or that of clouds and views"
    ),
    "vqa": Source(
        lambda data, roles, known: open_vqa(vqa_layout(data), roles, known),
        "the folder of VQA v2's questions and annotations",
    ),
    "worlds": Source(_worlds),
    "clips": Source(
        lambda data, roles, known: open_clips(
            **data.clips.to_dict(), roles=roles, known=known, max_words=data.max_words
        )
    ),
    "solids": Source(
        lambda data, roles, _: open_solids(Solids(**data.solids.to_dict()), shaping_of(data), roles)
    ),
    "questions": Source(
        lambda data, roles, known: open_questions(Worlds(**data.questions.to_dict()), roles, known)
    ),
}


# --- parts of a configuration -------------------------------------------------------------------


def _visual(data: Any) -> str:
    return data.get("visual", "image")  # a run may be older than the key


def _known_words(data: Any, vocabulary: Vocabulary | None) -> Vocabulary | None:
    """The given vocabulary, else that of ``data.vocabulary``, else None."""
    if vocabulary is None and data.vocabulary:
        return Vocabulary.load(data.vocabulary)
    return vocabulary


def augmentation_of(data: Any) -> Augmentation:
    """The `Augmentation` of ``data.pixels``."""
    given: dict[str, Any] = data.pixels.to_dict()
    for name in ("mean", "std"):  # a checkpoint stores lists
        given[name] = tuple(given[name])
    return Augmentation(**given)


def shaping_of(data: Any) -> Shaping:
    """The `Shaping` of 3D objects."""
    given: dict[str, Any] = {name: data[name] for name in ("image_size", "points", "faces")}
    given |= {name: data.objects[name] for name in ("views", "crop", "flip", "augment")}
    given |= {name: tuple(data.pixels[name]) for name in ("mean", "std")}
    return Shaping(**given)
