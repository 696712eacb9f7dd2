"""From a configuration to a data set and to the word vectors that go with it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.flickr8k_text import read_flickr8k
from hmgr_jax.data.scan import open_scan
from hmgr_jax.data.split import DataSet
from hmgr_jax.data.tokens import tokenize
from hmgr_jax.data.vectors import learn_vectors, read_vectors
from hmgr_jax.data.vocabulary import Vocabulary
from hmgr_jax.data.worlds import open_worlds
from hmgr_jax.data.worlds.clips import open_clips
from hmgr_jax.errors import UserError

SOURCES = ("scan", "worlds", "clips")


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
    if data.source == "worlds":
        return open_worlds(**data.worlds.to_dict(), roles=roles, known=vocabulary)
    if data.source == "clips":
        return open_clips(**data.clips.to_dict(), roles=roles, known=vocabulary)
    if data.source != "scan":
        raise UserError(f"data.source is one of {', '.join(SOURCES)}, not {data.source!r}.")
    if not data.root:
        files = [f"{data.splits[role]}{end}" for role in roles for end in ("_ims.npy", "_caps.txt")]
        raise UserError(
            f"data.root is empty: give the folder that holds {', '.join(files)}, as "
            "--config.data.root=FOLDER."
        )
    if vocabulary is None and data.vocabulary:
        vocabulary = Vocabulary.load(data.vocabulary)
    return open_scan(
        data.root,
        vocabulary=vocabulary,
        captions_per_image=data.captions_per_image or None,
        vocabulary_captions={} if vocabulary else more_captions(data),
        max_words=data.max_words,
        splits={role: data.splits[role] for role in roles},
    )


def more_captions(data: Any) -> dict[str, list[str]]:
    """{image: captions} of the train list in ``data.captions_from``; empty where there is none.

    A relative folder is looked for beside ``data.root``, and its absence is announced; an
    absolute one must exist.
    """
    if not data.captions_from or not Path(data.root).is_dir():  # the latter is refused elsewhere
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
    warnings.warn(
        f"{folder} does not hold {tokens.name} and {images.name}: words are learnt from the "
        "captions of the train split alone",
        RuntimeWarning,
        stacklevel=2,
    )
    return {}


def word_vectors(data: Any, opened: DataSet, dim: int) -> np.ndarray | None:
    """Initial word vectors float32 [V, dim], or None for random ones.

    ``data.vectors`` is ``"none"``, a text file of vectors, or ``"captions"``: learnt from the
    train captions, and from ``data.captions_from``, by which words describe one image. Captions of
    dev and test images are left out even where a list holds them.
    """
    if data.vectors == "none":
        return None
    if data.vectors != "captions":
        vectors, _ = read_vectors(data.vectors, opened.vocabulary)
        if vectors.shape[1] != dim:
            raise UserError(
                f"{data.vectors} holds vectors of {vectors.shape[1]} dimensions but model.word_dim "
                f"is {dim}: set it to {vectors.shape[1]}."
            )
        return vectors
    train = opened.splits["train"]
    by_image: dict[str, list[str]] = {}
    images = train.groups["text"]
    for image, caption in zip(images, train.sources["text"].captions, strict=True):  # type: ignore[attr-defined]
        by_image.setdefault(train.ids[train.visual][image], []).append(caption)
    held_out = {i for name, s in opened.splits.items() if name != "train" for i in s.ids[s.visual]}
    for image, captions in more_captions(data).items():
        if image not in held_out:
            by_image[image] = captions
    lists = [[w for c in captions for w in tokenize(c)] for captions in by_image.values()]
    return learn_vectors(lists, opened.vocabulary, dim)
