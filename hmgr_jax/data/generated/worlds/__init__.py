"""Generated worlds: scenes of coloured shapes with captions, a function of seed and index.

The data set that is always there. Its scenes come in families of four that share their objects and
differ only in who stands where; each caption is true of its scene and false of the other three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from hmgr_jax.data.generated.worlds.captions import Family, make_family
from hmgr_jax.data.generated.worlds.facts import bank_grammar, demand_bank, make_bank
from hmgr_jax.data.generated.worlds.lexicon import grammar
from hmgr_jax.data.generated.worlds.regions import make_regions, with_features
from hmgr_jax.data.generated.worlds.render import SceneDrawings
from hmgr_jax.data.generated.worlds.scene import SHAPES, SIBLINGS
from hmgr_jax.data.pictures.pixels import Augmentation, PixelSource
from hmgr_jax.data.split import DataSet, Source, Split
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.pieces import Pieces
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError

__all__ = ["VERSION", "Family", "make_family", "open_worlds"]

VERSION = 2
"""Raise it with any change that changes a scene, a caption or a feature."""


def open_worlds(
    seed: int = 0,
    train: int = 2000,
    dev: int = 200,
    test: int = 400,
    pictures: bool = False,
    features: bool = False,
    told: str = "",
    *,
    augmentation: Augmentation | None = None,
    roles: Sequence[str] = ("train", "dev", "test"),
    known: Vocabulary | None = None,
) -> DataSet:
    """Generate the scenes of three splits with region features and five captions each.

    Sizes count scenes, in multiples of 4 (whole families). Scene i of a split belongs to family
    i // 4 and does not depend on the sizes. Images give "regions" float16 [n, 6, 212],
    "n_regions" int32 [n], "boxes" float32 [n, 6, 4] and "labels" int16 [n, 6] (-1: none).

    With ``pictures`` images are rendered instead, as large as ``augmentation.resize``, and give
    "pixels" float32 [n, S, S, 3].

    With ``features`` the worlds are a feature set as well: images have "features" float32 [n, 424],
    the mean and deviation of their regions, captions have "features" float32 [n, V], their bags of
    words, and `Split.labels` are the kinds of scenes, one of 8 (`Scene.kind`).

    With ``told``, the name of a bank, the captions are the two that it has of every scene: what
    objects there are, and facts (`hmgr_jax.data.generated.worlds.facts`). They are as true of siblings.

    ``roles`` are the splits to make, ``known`` is the vocabulary of a checkpoint. Raises
    ``UserError`` for a size that is no positive multiple of 4, a negative seed, or a vocabulary
    that is not that of the worlds.
    """
    sizes = {"train": train, "dev": dev, "test": test}
    if seed < 0:
        raise UserError(f"the seed of the generated worlds is {seed}: give 0 or a larger number.")
    if pictures and features:
        raise UserError(
            "Generated worlds are pictures or features: leave data.worlds.pictures or "
            "data.worlds.features out."
        )
    for name, size in sizes.items():
        if size < SIBLINGS or size % SIBLINGS:
            raise UserError(
                f"the {name} split is to have {size} scenes, but they come in families of "
                f"{SIBLINGS}: give a positive multiple of {SIBLINGS}."
            )
    if told:
        demand_bank(told)
    # The words of the grammar, not of the captions drawn: a model knows those of any seed and size.
    own = Vocabulary.build(bank_grammar() if told else grammar(), threshold=1)
    vocabulary = known or own
    if not isinstance(vocabulary, Pieces) and vocabulary != own:
        raise UserError(
            "the model was trained on generated worlds with other words than these: evaluate it "
            "with the version of hmgr_jax that trained it, or train anew."
        )
    augmentation = (augmentation or Augmentation()) if pictures else None
    splits = {
        name: _make_split(seed, name, sizes[name], vocabulary, augmentation, features, told)
        for name in roles
    }
    made = f"worlds {VERSION} seed {seed} sizes {sorted(sizes.items())}"
    made += f" pictures {augmentation.resize}" if augmentation else ""
    made += " features" if features else ""
    made += f" told {told}" if told else ""
    return DataSet("worlds", splits, vocabulary, hashlib.sha256(made.encode()).hexdigest())


def _make_split(
    seed: int,
    name: str,
    size: int,
    vocabulary: Vocabulary,
    augmentation: Augmentation | None,
    features: bool,
    told: str,
) -> Split:
    families = [make_family(seed, name, number) for number in range(size // SIBLINGS)]
    scenes = [scene for family in families for scene in family.scenes]
    captions = [c.text for family in families for five in family.captions for c in five]
    if told:
        captions = list(make_bank(told, scenes).captions)
    each = len(captions) // size
    image = np.repeat(np.arange(size, dtype=np.int32), each)
    names = [f"{name}/{number:06d}" for number in range(size)]
    tokens = [vocabulary.tokenize(caption) for caption in captions]
    images: Source
    if augmentation:
        images = PixelSource(SceneDrawings(scenes, augmentation.resize), augmentation)
    else:
        images = with_features(make_regions(scenes)) if features else make_regions(scenes)
    kinds = np.eye(len(SHAPES), dtype=np.uint8)[[scene.kind for scene in scenes]]
    return Split(
        name=name,
        sources={
            "image": images,
            "text": CaptionSource(tokens, vocabulary, captions=captions, bags=features),
        },
        groups={"image": np.arange(size, dtype=np.int32), "text": image},
        rows={"image": image, "text": np.arange(len(image), dtype=np.int32)},
        ids={
            "image": names,
            "text": [f"{names[i]}#{k % each}" for k, i in enumerate(image)],
        },
        families={"image": np.arange(size, dtype=np.int32) // SIBLINGS, "text": image // SIBLINGS},
        labels={"image": kinds, "text": kinds[image]} if features else {},
    )
