"""Generated clips as a data set, a function of (seed, split, index)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from hmgr_jax.data.generated.worlds.clip import Clip, draw_clips
from hmgr_jax.data.generated.worlds.clip_captions import PER_CLIP, clip_grammar, describe_clip
from hmgr_jax.data.generated.worlds.frames import make_frames
from hmgr_jax.data.generated.worlds.lexicon import choose_vocabulary
from hmgr_jax.data.generated.worlds.scene import SIBLINGS, check_sizes
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions import MAX_WORDS, CaptionSource, captioned_split
from hmgr_jax.data.text.vocabulary import Vocabulary

VERSION = 1
"""Raise it with any change of a clip, a caption or a feature."""


def open_clips(
    seed: int = 0,
    train: int = 2000,
    dev: int = 200,
    test: int = 400,
    *,
    roles: Sequence[str] = ("train", "dev", "test"),
    known: Vocabulary | None = None,
    max_words: int = MAX_WORDS,
) -> DataSet:
    """Generate the clips of three splits with frame features and five captions each.

    Sizes count clips, in multiples of 4 (whole families). Clip i of a split belongs to family
    i // 4 and does not depend on the sizes. Videos give "frames" float16 [n, 8, 256] and "n_frames"
    int32 [n], 5 to 8. ``known`` is the vocabulary of a
    checkpoint; captions are cut to ``max_words`` tokens.

    Raises:
        UserError: a size is not a positive multiple of 4, the seed is negative, or the vocabulary
            is not that of the clips.
    """
    sizes = {"train": train, "dev": dev, "test": test}
    check_sizes("clips", seed, sizes)
    vocabulary = choose_vocabulary(clip_grammar(), known, "clips")
    splits = {name: _make_split(seed, name, sizes[name], vocabulary, max_words) for name in roles}
    made = f"clips {VERSION} seed {seed} sizes {sorted(sizes.items())}"
    return DataSet("clips", splits, vocabulary, hashlib.sha256(made.encode()).hexdigest())


def make_clips(seed: int, split: str, size: int) -> list[Clip]:
    """Make the first ``size`` clips of a split."""
    return [c for family in range(size // SIBLINGS) for c in draw_clips(seed, split, family)]


def _make_split(seed: int, name: str, size: int, vocabulary: Vocabulary, max_words: int) -> Split:
    clips = make_clips(seed, name, size)
    captions = [caption for clip in clips for caption in describe_clip(clip)]
    number = np.arange(size, dtype=np.int32)
    video = np.repeat(number, PER_CLIP)
    names = [f"{name}/{k:06d}" for k in range(size)]
    tokens = [vocabulary.tokenize(caption) for caption in captions]
    texts = CaptionSource(tokens, vocabulary, max_words=max_words, captions=captions)
    families = {"video": number // SIBLINGS, "text": video // SIBLINGS}
    return captioned_split(
        name, "video", make_frames(clips), texts, video, names, families=families
    )
