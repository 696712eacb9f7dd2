"""Sentences for statements, in varied words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from hmgr_jax.data.generated.worlds.lexicon import BOTH, PREDICATES, SENTENCES, SPECIAL, WORDS
from hmgr_jax.data.generated.worlds.scene import COLOURS, SHAPES, SIZES, Scene
from hmgr_jax.data.generated.worlds.statements import RELATIONS, Statement

Choice = TypeVar("Choice")

LONGEST = 22
"""Tokens of a caption; with start and end tokens it fits a padded length of 24."""
Drawn = Iterator[float]
"""Uniform random numbers in 0..1, one for every choice of a caption."""


def subjects(statement: Statement) -> tuple[int, ...]:
    """Objects that can be the subject of a sentence with this statement."""
    roles = range(len(statement.objects))
    return tuple(statement.objects[r] for r in roles if (statement.relation, r) in PREDICATES)


def say(statements: Sequence[Statement], scene: Scene, rng: np.random.Generator) -> str:
    """Write a sentence of 8 to 22 tokens that makes one or two statements.

    Two statements must share an object that can be the subject of both.
    """
    drawn = iter(rng.random(48).tolist())
    if len(statements) == 1:
        return _say_one(statements[0], scene, drawn)
    return _say_both(statements[0], statements[1], scene, drawn)


def _say_one(statement: Statement, scene: Scene, drawn: Drawn) -> str:
    names = [_name(scene, k, drawn, sized=next(drawn) < 0.4) for k in statement.objects]
    if next(drawn) < 0.45 and statement.relation in SPECIAL:
        ordered = _shuffled(statement, drawn)
        pattern = _pick(SPECIAL[statement.relation], drawn)
        return pattern.format(*(f"the {names[k]}" for k in ordered))
    subject = _pick(subjects(statement), drawn)
    name = names[statement.objects.index(subject)]
    first = _predicate(statement, subject, names, drawn)
    return _fill(_pick(SENTENCES, drawn), name, first, "")


def _say_both(one: Statement, two: Statement, scene: Scene, drawn: Drawn) -> str:
    (subject,) = set(subjects(one)) & set(subjects(two))
    parts = []
    for statement in (one, two):
        names = [_name(scene, k, drawn, sized=False) for k in statement.objects]
        parts.append(_predicate(statement, subject, names, drawn))
    short = len(one.objects) == len(two.objects) == 2
    name = _name(scene, subject, drawn, sized=short and next(drawn) < 0.5)
    sentences = [_fill(pattern, name, *parts) for pattern in BOTH]
    brief = [text for text in sentences if len(text.split()) + text.count(",") <= LONGEST]
    return _pick(brief, drawn)


def _fill(pattern: str, name: str, first: str, second: str) -> str:
    article = "an" if name[0] in "aeiou" else "a"
    return pattern.format(
        subject=f"the {name}", a_subject=f"{article} {name}", first=first, second=second
    )


def _predicate(statement: Statement, subject: int, names: Sequence[str], drawn: Drawn) -> str:
    role = statement.objects.index(subject)
    pattern = _pick(PREDICATES[statement.relation, role], drawn)
    return pattern.format(*(f"the {name}" for name in names))


def _shuffled(statement: Statement, drawn: Drawn) -> list[int]:
    """Order of the objects in a sentence; exchangeable ones are swapped half of the time."""
    order = list(range(len(statement.objects)))
    if RELATIONS[statement.relation].symmetric and next(drawn) < 0.5:
        order[-2:] = order[:-3:-1]
    return order


def _name(scene: Scene, index: int, drawn: Drawn, sized: bool) -> str:
    """Colour and shape, which are unique in a scene; the size too if `sized`."""
    thing = scene.things[index]
    words = [_word(COLOURS[thing.colour], drawn), _word(SHAPES[thing.shape], drawn)]
    if sized:
        words.insert(0, _word(SIZES[thing.size], drawn))
    return " ".join(words)


def _word(meaning: str, drawn: Drawn) -> str:
    """The common word with probability 2/3, else any."""
    words = WORDS[meaning]
    return words[0] if next(drawn) < 0.67 else _pick(words, drawn)


def _pick(choices: Sequence[Choice], drawn: Drawn) -> Choice:
    return choices[int(next(drawn) * len(choices))]
