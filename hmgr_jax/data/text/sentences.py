"""Sentences of one's own as a source of items, with all that a model reads of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.text_graph import parsed_arcs
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError


def open_sentences(
    sentences: Sequence[str], vocabulary: Vocabulary, wanted: Collection[str], max_words: int
) -> CaptionSource:
    """Sentences, of which the first ``max_words`` words count, as a model's text items.

    Args:
        sentences: none of them empty.
        vocabulary: of the model.
        wanted: names of the model's inputs of text; with ``heads`` among them they are parsed, with
            ``features`` they are bags of words.
        max_words: without the marks of beginning and end.

    Raises:
        UserError: they have to be parsed, and no parser is installed; the model has no words.
    """
    bags = "features" in wanted
    if bags and len(vocabulary) == len(MARKS):
        raise UserError(
            "This run was trained on vectors of texts, not on words: give arrays, as "
            '{"features": [n, D]}, made like those that it was trained on.'
        )
    arcs = parsed_arcs(sentences) if "heads" in wanted else None
    tokens = [vocabulary.tokenize(sentence) for sentence in sentences]
    return CaptionSource(tokens, vocabulary, max_words=max_words, arcs=arcs, bags=bags)
