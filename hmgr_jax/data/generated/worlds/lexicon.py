"""Words and sentence patterns of captions: a closed grammar with a closed vocabulary."""

from __future__ import annotations

import re

from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError

WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "star": ("star",),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
    "heart": ("heart",),
    "moon": ("moon", "crescent"),
    "red": ("red", "scarlet"),
    "orange": ("orange", "amber"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "black": ("black", "dark"),
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
}
"""{shape, colour or size: synonyms}, the most common first."""

LEFT = ("left of", "to the left of", "on the left of")
RIGHT = ("right of", "to the right of", "on the right of")
ABOVE = ("above", "higher up than", "over", "somewhere above")
BELOW = ("below", "lower down than", "underneath", "somewhere below")
NEXT = ("next to", "beside", "right beside", "close to")
NEAREST = ("nearest to", "closest to", "nearest of all to", "closest of all to")
FAR = ("far from", "far away from", "a long way from", "nowhere near")
ROW = ("in one row with", "level with", "at the height of")
COLUMN = ("in one column with", "vertically in line with")

PLACES = {
    "left": ("on the left side of", "near the left edge of", "at the left of"),
    "right": ("on the right side of", "near the right edge of", "at the right of"),
    "top": ("at the top of", "near the upper edge of", "high up in"),
    "bottom": ("at the bottom of", "near the lower edge of", "low down in"),
}

_OF_TWO = {
    "left of": (LEFT, RIGHT),
    "above": (ABOVE, BELOW),
    "same row": (ROW, ROW),
    "same column": (COLUMN, COLUMN),
    "next to": (NEXT, NEXT),
    "far from": (FAR, FAR),
}
PREDICATES: dict[tuple[str, int], tuple[str, ...]] = {
    **{
        (f"at the {side}", 0): tuple(f"{words} the picture" for words in phrases)
        for side, phrases in PLACES.items()
    },
    **{
        (relation, role): tuple(f"{words} {{{1 - role}}}" for words in phrases)
        for relation, both in _OF_TWO.items()
        for role, phrases in enumerate(both)
    },
    ("nearest to", 0): tuple(f"{words} {{1}}" for words in NEAREST),
    ("closer to", 0): (
        "closer to {1} than to {2}",
        "nearer to {1} than to {2}",
        "farther from {2} than from {1}",
    ),
    ("between", 0): ("between {1} and {2}", "between {2} and {1}", "in between {1} and {2}"),
}
"""{(relation, role of the subject): predicates after "is"}."""

SENTENCES = (
    "{subject} is {first}",
    "{subject} is placed {first}",
    "there is {a_subject} {first}",
    "you can see {a_subject} {first}",
    "this picture shows {a_subject} {first}",
    "{subject} can be found {first}",
)
"""Sentences of one statement with its subject first."""

SPECIAL: dict[str, tuple[str, ...]] = {
    "next to": (
        "{0} and {1} are next to each other",
        "{0} and {1} are close together",
        "{1} has {0} right beside it",
    ),
    "far from": ("{0} and {1} are far apart", "there is a wide gap between {0} and {1}"),
    "nearest to": (
        "the shape closest to {1} is {0}",
        "{0} is the nearest neighbour of {1}",
        "no shape is closer to {1} than {0}",
        "{1} has {0} as its nearest neighbour",
    ),
    "closer to": ("of {1} and {2}, {1} is nearer to {0}",),
    "between": ("{1} and {2} have {0} between them", "between {1} and {2} there is {0}"),
    "left of": (
        "on the left side of {1} there is {0}",
        "on the right side of {0} there is {1}",
        "{0} has {1} on its right",
        "{1} has {0} on its left",
    ),
    "above": (
        "above {1} there is {0}",
        "below {0} there is {1}",
        "{0} has {1} below it",
        "{1} has {0} above it",
    ),
    "same row": ("{0} and {1} are in the same row",),
    "same column": ("{0} and {1} are in the same column",),
}
"""{relation: sentences}; {0}, {1}, {2} are its objects in order."""

BOTH = (
    "{subject} is {first} and {second}",
    "{subject} is {first} and also {second}",
    "{subject} is both {first} and {second}",
    "there is {a_subject} {first} and {second}",
    "{subject}, which is {first}, is {second}",
)
"""Sentences of two statements with one subject, the shortest first."""


def grammar() -> list[list[str]]:
    """All words of captions, as lists of tokens."""
    patterns = [*SENTENCES, *BOTH, "the a an"]
    for group in (*PREDICATES.values(), *SPECIAL.values(), *WORDS.values()):
        patterns.extend(group)
    return [tokenize(re.sub(r"{\w+}", " ", pattern)) for pattern in patterns]


SYNONYMS = tuple((words[0], other) for words in WORDS.values() for other in words[1:])
"""Pairs of synonyms."""


def choose_vocabulary(
    grammar: list[list[str]], known: Vocabulary | None, source: str
) -> Vocabulary:
    """Build the vocabulary of a grammar, or return that of a checkpoint, ``known``.

    Raises:
        UserError: the checkpoint's words are others than those of the grammar of ``source``.
    """
    own = Vocabulary.build(grammar, threshold=1)
    if known and known.whole_words and known != own:
        raise UserError(
            f"the model was trained on generated {source} with other words than these: evaluate it "
            "with the version of hmgr_jax that trained it, or train again."
        )
    return known or own
