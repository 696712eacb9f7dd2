"""From a configuration to a data set and to the word vectors that go with it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.features.sets import Layout, open_features
from hmgr_jax.data.generated.solids.open import Solids, open_solids
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.data.generated.worlds.clips import open_clips
from hmgr_jax.data.generated.worlds.facts import BANKS
from hmgr_jax.data.generated.worlds.questions import Worlds, open_questions
from hmgr_jax.data.generated.worlds.questions import open_bank as open_worlds_bank
from hmgr_jax.data.pictures.captioned import open_pictures
from hmgr_jax.data.pictures.coco_extras import with_numbers, with_objects
from hmgr_jax.data.pictures.cub import open_cub
from hmgr_jax.data.pictures.pixels import Augmentation
from hmgr_jax.data.pictures.sets import Settings
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.shapes3d.augment import Shaping
from hmgr_jax.data.shapes3d.modelnet.joining import Where
from hmgr_jax.data.shapes3d.modelnet.open import open_modelnet
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.flickr8k import read_flickr8k
from hmgr_jax.data.text.pieces import Pieces
from hmgr_jax.data.text.vectors import learn_vectors, read_vectors
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.data.vqa.open import Layout as VQALayout
from hmgr_jax.data.vqa.open import open_bank as open_vqa_bank
from hmgr_jax.data.vqa.open import open_vqa
from hmgr_jax.data.vqa.questions import Bank
from hmgr_jax.errors import UserError

SOURCES = (
    *("scan", "array_record", "tfds", "pictures", "cub", "features", "modelnet", "vqa"),
    *("worlds", "clips", "solids", "questions"),
)
PICTURES = ("pictures", "cub")
WHAT = {
    "array_record": "the folder that hmgr_jax.prepare array-record made",
    "tfds": "a dataset's folder, or name/config:version as it lies in data.tfds_dir",
    "pictures": "the folder from which data.captions and data.pictures are named",
    "cub": "the folder that holds CUB_200_2011 and cvpr2016_cub",
    "features": "the file (.mat, .npz, .h5) or the folder of a feature set",
    "vqa": "the folder of VQA v2's questions and annotations",
    "modelnet": "the folder that hmgr_jax.prepare modelnet made, or that of clouds and views",
}
"""What data.root is, by source."""


def open_data(
    data: Any, vocabulary: Vocabulary | None = None, roles: Sequence[str] = ("train", "dev", "test")
) -> DataSet:
    """Open what ``config.data`` describes.

    Args:
        data: the ``data`` part of a configuration.
        vocabulary: that of a checkpoint; otherwise ``data.vocabulary`` is loaded or one is built.
        roles: which of train, dev and test are wanted.

    Raises:
        UserError: files are missing or malformed.
    """
    if vocabulary is None and data.get("pieces"):
        if data.vocabulary:
            raise UserError(
                f"data.pieces is {data.pieces} and data.vocabulary {data.vocabulary}, but captions "
                "are read as pieces or as words: leave one of them empty."
            )
        vocabulary = Pieces.load(data.pieces)
    visual = data.get("visual", "image")  # a run may be older than the key
    if data.source == "worlds":
        if visual != "image":
            raise UserError(f"Generated worlds hold images: leave data.visual, {visual!r}, out.")
        given = data.worlds.to_dict()
        if given.get("pictures"):
            given["augmentation"] = augmentation_of(data)
        return open_worlds(**given, roles=roles, known=vocabulary)
    if data.source == "clips":
        return open_clips(**data.clips.to_dict(), roles=roles, known=vocabulary)
    if data.source == "questions":
        return open_questions(Worlds(**data.questions.to_dict()), roles, vocabulary)
    if data.source == "solids":
        return open_solids(Solids(**data.solids.to_dict()), shaping_of(data), roles)
    if data.source not in SOURCES:
        raise UserError(f"data.source is one of {', '.join(SOURCES)}, not {data.source!r}.")
    if not data.root:
        files = [f"{data.splits[role]}{end}" for role in roles for end in ("_ims.npy", "_caps.txt")]
        what = WHAT.get(data.source, f"the folder that holds {', '.join(files)}")
        raise UserError(f"data.root is empty: give {what}, as --config.data.root=FOLDER.")
    if data.source == "vqa":
        return open_vqa(vqa_layout(data), roles, vocabulary)
    if data.source == "modelnet":
        given = data.objects.to_dict()
        named = {name: given[name] for name in ("clouds", "pictures", "meshes", "dev")}
        where = Where(**named, corrupt=data.corrupt)
        return open_modelnet(data.root, shaping_of(data), where, roles)
    if data.source == "features":
        layout = Layout(**data.features.to_dict())
        return open_features(data.root, roles=roles, splits=dict(data.splits), layout=layout)
    if vocabulary is None and data.vocabulary:
        vocabulary = Vocabulary.load(data.vocabulary)
    splits = {role: data.splits[role] for role in roles}
    if data.source in PICTURES:
        if visual != "image":
            raise UserError(f"Pictures are images: leave data.visual, {visual!r}, out.")
        return _open_pictures(data, splits, vocabulary)
    return _opener(data)(
        data.root,
        vocabulary=vocabulary,
        captions_per_image=data.captions_per_image or None,
        vocabulary_captions={} if vocabulary else more_captions(data),
        max_words=data.max_words,
        splits=splits,
        visual=visual,
    )


def bank_names(data: Any) -> tuple[str, ...]:
    """The banks of captions that ``config.data`` has, the usual one first.

    Raises:
        UserError: it has none.
    """
    if data.source == "questions":
        return tuple(BANKS)
    if data.source == "vqa" and data.vqa.banks:
        return tuple(data.vqa.banks)
    raise UserError(
        f"data.source {data.source} has no bank of captions to retrieve from: set model.k_train "
        "and model.k_test to 0, or give questions."
    )


def open_bank(data: Any, name: str) -> Bank:
    """A bank of captions by its name.

    Raises:
        UserError: there is none of that name.
    """
    bank_names(data)
    if data.source == "vqa":
        return open_vqa_bank(vqa_layout(data), name)
    return open_worlds_bank(Worlds(**data.questions.to_dict()), name)


def vqa_layout(data: Any) -> VQALayout:
    """Where ``data`` has the files of VQA v2."""
    given: dict[str, Any] = data.vqa.to_dict()
    splits, words = dict(data.splits), data.max_words
    return VQALayout(root=Path(data.root), splits=splits, max_words=words, **given)


def _open_pictures(data: Any, splits: dict[str, str], vocabulary: Vocabulary | None) -> DataSet:
    settings = Settings(
        augmentation=augmentation_of(data),
        corrupt=data.corrupt,
        max_words=data.max_words,
        vocabulary=vocabulary,
        vocabulary_captions={} if vocabulary else more_captions(data),
        threads=data.threads,
    )
    count = data.captions_per_image or None
    if data.source == "cub":
        return open_cub(
            data.root,
            splits=dict(data.splits),
            roles=splits,
            pictures=data.pictures,
            captions_per_image=count,
            settings=settings,
        )
    opened = open_pictures(
        data.root,
        splits=splits,
        captions=data.captions,
        pictures=data.pictures,
        captions_per_image=count,
        restval=data.restval,
        settings=settings,
    )
    if data.numbered:
        opened = with_numbers(opened, Path(data.root, data.numbered))
    return with_objects(opened, Path(data.root, data.instances)) if data.instances else opened


def augmentation_of(data: Any) -> Augmentation:
    """How ``data.pixels`` makes arrays of pictures."""
    given: dict[str, Any] = data.pixels.to_dict()
    for name in ("mean", "std"):  # lists where they come from a checkpoint
        given[name] = tuple(given[name])
    return Augmentation(**given)


def shaping_of(data: Any) -> Shaping:
    """How ``data`` makes arrays of 3D objects."""
    given: dict[str, Any] = {name: data[name] for name in ("image_size", "points", "faces")}
    given |= {name: data.objects[name] for name in ("views", "crop", "flip", "augment")}
    given |= {name: tuple(data.pixels[name]) for name in ("mean", "std")}
    return Shaping(**given)


def _opener(data: Any) -> Callable[..., DataSet]:
    """What opens a source; TFDS is loaded only where it is needed."""
    if data.source == "scan":
        return open_scan
    from hmgr_jax.data.records import open as records

    if data.source == "array_record":
        return records.open_array_record
    return functools.partial(records.open_tfds, data_dir=data.tfds_dir)


def more_captions(data: Any, *, tell: bool = True) -> dict[str, list[str]]:
    """{image: captions} of the train list in ``data.captions_from``; empty where there is none.

    A relative folder is looked for beside ``data.root``, and its absence is told (``tell``); an
    absolute one must exist.
    """
    found = Path(data.root).is_dir() or Path(data.captions_from).is_absolute()
    if not data.captions_from or not found:  # a folder that is none is refused elsewhere
        return {}
    folder = Path(data.root, data.captions_from)
    tokens, images = folder / "Flickr8k.token.txt", folder / "Flickr_8k.trainImages.txt"
    if tokens.is_file() and images.is_file():
        return read_flickr8k(tokens, images)
    if Path(data.captions_from).is_absolute():
        raise UserError(
            f"data.captions_from names {folder}, which should hold {tokens.name} and "
            f"{images.name}: correct the path or leave it empty."
        )
    if tell:
        warnings.warn(
            f"{folder} does not hold {tokens.name} and {images.name}: words are learnt from the "
            "captions of the train split alone",
            RuntimeWarning,
            stacklevel=2,
        )
    return {}


def word_vectors(data: Any, opened: DataSet, dim: int, *, learn: bool = False) -> np.ndarray | None:
    """Initial word vectors float32 [V, dim], or None for random ones.

    ``data.vectors`` is ``"none"``, a text file of vectors, or ``"captions"``: learnt from the
    train captions, and from ``data.captions_from``, by which words describe one image. Captions of
    dev and test images are left out even where a list holds them. ``learn`` takes ``"none"`` for
    ``"captions"``: what words are compared by cannot be random.
    """
    if data.vectors == "none" and not learn:
        return None
    if data.vectors not in ("none", "captions"):
        vectors, _ = read_vectors(data.vectors, opened.vocabulary)
        if vectors.shape[1] != dim:
            raise UserError(
                f"{data.vectors} holds vectors of {vectors.shape[1]} dimensions but model.word_dim "
                f"is {dim}: set it to {vectors.shape[1]}."
            )
        return vectors
    train = opened.splits["train"]
    if "text" not in train.sources:
        raise UserError(
            f"data.vectors is captions, but {opened.name} has none to learn words from: give a "
            "file of vectors, or leave it at none."
        )
    by_image: dict[str, list[str]] = {}
    captions = train.sources["text"].captions  # type: ignore[attr-defined]
    for image, caption in zip(train.rows[train.visual], train.rows["text"], strict=True):
        by_image.setdefault(train.ids[train.visual][image], []).append(captions[caption])
    held_out = {i for name, s in opened.splits.items() if name != "train" for i in s.ids[s.visual]}
    for image, captions in more_captions(data, tell=False).items():  # told at opening
        if image not in held_out:
            by_image[image] = captions
    known = opened.vocabulary
    lists = [[w for c in captions for w in known.tokenize(c)] for captions in by_image.values()]
    return learn_vectors(lists, known, dim)
