"""The vocabulary of a data set: words that are frequent enough in its captions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path

from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

THRESHOLD = 4
"""A word must occur this often in train and dev to enter the vocabulary (SCAN)."""


def build_vocabulary(
    root: Path,
    sentences: Sequence[str],
    tokens: Sequence[Sequence[str]],
    more: Mapping[str, Sequence[str]],
    held_out: Collection[str],
) -> Vocabulary:
    """Words that occur `THRESHOLD` times.

    Args:
        root: where the captions are from, for people.
        sentences: the captions of train and dev.
        tokens: of the same.
        more: {image: captions} from elsewhere, counted unless they are among ``sentences``.
        held_out: images of dev and test, whose captions in ``more`` are not counted.

    Raises:
        UserError: no word is frequent enough.
    """
    counted = {" ".join(sentence.split()) for sentence in sentences} if more else set()
    others = (
        tokenize(caption)
        for image, captions in more.items()
        for caption in captions
        if image not in held_out and " ".join(caption.split()) not in counted
    )
    vocabulary = Vocabulary.build(chain(tokens, others), THRESHOLD)
    if len(vocabulary) == len(MARKS):
        raise UserError(
            f"no word occurs {THRESHOLD} times in the captions of {root}, so its vocabulary "
            "would be empty: give a vocabulary."
        )
    return vocabulary
