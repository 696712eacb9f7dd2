"""Generated clips as a data set: a function of seed and index, as scenes are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from hmgr_jax.data.generated.worlds.clip import Clip, draw_clips
from hmgr_jax.data.generated.worlds.clip_captions import PER_CLIP, clip_grammar, describe_clip
from hmgr_jax.data.generated.worlds.frames import make_frames
from hmgr_jax.data.generated.worlds.scene import SIBLINGS
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.pieces import Pieces
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError

VERSION = 1
"""Raise it with any change that changes a clip, a caption or a feature."""


def open_clips(
    seed: int = 0,
    train: int = 2000,
    dev: int = 200,
    test: int = 400,
    *,
    roles: Sequence[str] = ("train", "dev", "test"),
    known: Vocabulary | None = None,
) -> DataSet:
    """Generate the clips of three splits with frame features and five captions each.

    Sizes count clips, in multiples of 4 (whole families). Clip i of a split belongs to family
    i // 4 and does not depend on the sizes. Videos give "frames" float16 [n, 8, 256] and "n_frames"
    int32 [n], 5 to 8.

    ``roles`` are the splits to make, ``known`` is the vocabulary of a checkpoint. Raises
    ``UserError`` for a size that is no positive multiple of 4, a negative seed, or a vocabulary
    that is not that of the clips.
    """
    sizes = {"train": train, "dev": dev, "test": test}
    if seed < 0:
        raise UserError(f"the seed of the generated clips is {seed}: give 0 or a larger number.")
    for name, size in sizes.items():
        if size < SIBLINGS or size % SIBLINGS:
            raise UserError(
                f"the {name} split is to have {size} clips, but they come in families of "
                f"{SIBLINGS}: give a positive multiple of {SIBLINGS}."
            )
    own = Vocabulary.build(clip_grammar(), threshold=1)
    vocabulary = known or own
    if not isinstance(vocabulary, Pieces) and vocabulary != own:
        raise UserError(
            "the model was trained on generated clips with other words than these: evaluate it "
            "with the version of hmgr_jax that trained it, or train anew."
        )
    splits = {name: _make_split(seed, name, sizes[name], vocabulary) for name in roles}
    made = f"clips {VERSION} seed {seed} sizes {sorted(sizes.items())}"
    return DataSet("clips", splits, vocabulary, hashlib.sha256(made.encode()).hexdigest())


def make_clips(seed: int, split: str, size: int) -> list[Clip]:
    """The first ``size`` clips of a split."""
    return [c for family in range(size // SIBLINGS) for c in draw_clips(seed, split, family)]


def _make_split(seed: int, name: str, size: int, vocabulary: Vocabulary) -> Split:
    clips = make_clips(seed, name, size)
    captions = [caption for clip in clips for caption in describe_clip(clip)]
    number = np.arange(size, dtype=np.int32)
    video = np.repeat(number, PER_CLIP)
    names = [f"{name}/{k:06d}" for k in range(size)]
    tokens = [vocabulary.tokenize(caption) for caption in captions]
    return Split(
        name=name,
        sources={
            "video": make_frames(clips),
            "text": CaptionSource(tokens, vocabulary, captions=captions),
        },
        groups={"video": number, "text": video},
        rows={"video": video, "text": np.arange(len(video), dtype=np.int32)},
        ids={
            "video": names,
            "text": [f"{names[i]}#{k % PER_CLIP}" for k, i in enumerate(video)],
        },
        families={"video": number // SIBLINGS, "text": video // SIBLINGS},
    )
