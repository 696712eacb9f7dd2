"""Further captions to learn words from, and the first vectors of words."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.flickr8k import read_flickr8k
from hmgr_jax.data.text.vectors import learn_vectors, read_vectors
from hmgr_jax.errors import UserError


def more_captions(data: Any, *, warn: bool = True) -> dict[str, list[str]]:
    """{image: captions} of the train list in ``data.captions_from``; empty without one.

    A relative folder is searched beside ``data.root``; ``warn`` of its absence. An absolute one
    must exist.
    """
    found = Path(data.root).is_dir() or Path(data.captions_from).is_absolute()
    if not data.captions_from or not found:  # the opener refuses a missing root
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
    if warn:
        warnings.warn(
            f"{folder} does not hold {tokens.name} and {images.name}: words are learned from the "
            "captions of the train split alone",
            RuntimeWarning,
            stacklevel=2,
        )
    return {}


def word_vectors(data: Any, opened: DataSet, dim: int, *, learn: bool = False) -> np.ndarray | None:
    """Initial word vectors float32 [V, dim], or None for random ones.

    ``data.vectors`` is ``"none"``, a text file of vectors, or ``"captions"``: learned from the
    train captions and those of ``data.captions_from``, by the words that describe one image.
    Captions of dev and test images are excluded. With ``learn`` vectors are learned for ``"none"``
    too, for a model that compares words by their vectors.

    Raises:
        UserError: the file's vectors have another dimension, or there are no captions.
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
    for image, captions in more_captions(data, warn=False).items():  # `open_data` warned
        if image not in held_out:
            by_image[image] = captions
    known = opened.vocabulary
    lists = [[w for c in captions for w in known.tokenize(c)] for captions in by_image.values()]
    return learn_vectors(lists, known, dim)
