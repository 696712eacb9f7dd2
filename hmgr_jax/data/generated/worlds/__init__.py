"""Generated worlds: scenes of coloured shapes with captions, a function of (seed, split, index).

They are always available as data. Scenes come in families of four that share their objects and
differ only in the positions; each caption is true of its scene and false of the other three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from hmgr_jax.data.generated.worlds.captions import Family, make_family
from hmgr_jax.data.generated.worlds.facts import bank_grammar, check_bank, make_bank
from hmgr_jax.data.generated.worlds.lexicon import choose_vocabulary, grammar
from hmgr_jax.data.generated.worlds.regions import make_regions
from hmgr_jax.data.generated.worlds.render import SceneDrawings
from hmgr_jax.data.generated.worlds.scene import SHAPES, SIBLINGS, check_sizes
from hmgr_jax.data.pictures.pixels import Augmentation, PixelSource
from hmgr_jax.data.split import DataSet, Source, Split
from hmgr_jax.data.text.captions import MAX_WORDS, CaptionSource, captioned_split
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError

__all__ = ["VERSION", "Family", "make_family", "open_worlds"]

VERSION = 2
"""Raise it with any change of a scene, a caption or a feature."""


def open_worlds(
    seed: int = 0,
    train: int = 2000,
    dev: int = 200,
    test: int = 400,
    pictures: bool = False,
    features: bool = False,
    bank: str = "",
    *,
    augmentation: Augmentation | None = None,
    roles: Sequence[str] = ("train", "dev", "test"),
    known: Vocabulary | None = None,
    max_words: int = MAX_WORDS,
) -> DataSet:
    """Generate the scenes of three splits with region features and five captions each.

    Sizes count scenes, in multiples of 4 (whole families). Scene i of a split belongs to family
    i // 4 and does not depend on the sizes. Images give "regions" float16 [n, 6, 212], "n_regions"
    int32 [n], "boxes" float32 [n, 6, 4] and "labels" int16 [n, 6] (-1: none).

    With ``pictures`` images are rendered instead, as large as ``augmentation.side``, and give
    "pixels" float32 [n, S, S, 3]. With ``features`` there are also "features": float32 [n, 424] of
    images (mean and deviation of their regions), float32 [n, V] of captions (bags of words);
    `Split.labels` are then `Scene.kind`, one of 8. ``bank`` names a bank whose two captions per
    scene replace the five: objects and facts (`hmgr_jax.data.generated.worlds.facts`), equally true
    of siblings. ``known`` is the vocabulary of a checkpoint. Captions are cut to ``max_words``
    tokens.

    Raises:
        UserError: a size is not a positive multiple of 4, the seed is negative, or the vocabulary
            is not that of the worlds.
    """
    sizes = {"train": train, "dev": dev, "test": test}
    check_sizes("worlds", seed, sizes)
    if pictures and features:
        raise UserError(
            "Generated worlds are pictures or features: leave data.worlds.pictures or "
            "data.worlds.features out."
        )
    if bank:
        check_bank(bank)
    # All words of the grammar, so that a model knows the words of any seed and size.
    vocabulary = choose_vocabulary(bank_grammar() if bank else grammar(), known, "worlds")
    augmentation = (augmentation or Augmentation()) if pictures else None
    given = (vocabulary, max_words, augmentation, features, bank)
    splits = {name: _make_split(seed, name, sizes[name], *given) for name in roles}
    made = f"worlds {VERSION} seed {seed} sizes {sorted(sizes.items())}"
    made += f" pictures {augmentation.side}" if augmentation else ""
    made += " features" if features else ""
    made += f" told {bank}" if bank else ""
    return DataSet("worlds", splits, vocabulary, hashlib.sha256(made.encode()).hexdigest())


def _make_split(
    seed: int,
    name: str,
    size: int,
    vocabulary: Vocabulary,
    max_words: int,
    augmentation: Augmentation | None,
    features: bool,
    bank: str,
) -> Split:
    families = [make_family(seed, name, number) for number in range(size // SIBLINGS)]
    scenes = [scene for family in families for scene in family.scenes]
    captions = [c.text for family in families for five in family.captions for c in five]
    if bank:
        captions = list(make_bank(bank, scenes).captions)
    image = np.repeat(np.arange(size, dtype=np.int32), len(captions) // size)
    names = [f"{name}/{number:06d}" for number in range(size)]
    tokens = [vocabulary.tokenize(caption) for caption in captions]
    images: Source
    if augmentation:
        images = PixelSource(SceneDrawings(scenes, augmentation.side), augmentation)
    else:
        images = make_regions(scenes, vectors=features)
    kinds = np.eye(len(SHAPES), dtype=np.uint8)[[scene.kind for scene in scenes]]
    texts = CaptionSource(tokens, vocabulary, max_words=max_words, captions=captions, bags=features)
    of_family = {"image": np.arange(size, dtype=np.int32) // SIBLINGS, "text": image // SIBLINGS}
    labels = {"image": kinds, "text": kinds[image]} if features else {}
    return captioned_split(
        name, "image", images, texts, image, names, families=of_family, labels=labels
    )
