"""Five captions per clip, true of their clip and false of its three siblings; a closed grammar.

A caption states the direction of both movers, or which of them moves first; either is true of one
sibling only. Pace and still objects may be mentioned too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from hmgr_jax.data.generated.worlds.clip import MOVERS, Actor, Clip
from hmgr_jax.data.generated.worlds.lexicon import WORDS
from hmgr_jax.data.generated.worlds.scene import COLOURS, SHAPES, SIZES
from hmgr_jax.data.text.tokens import tokenize

MOTIONS = {
    "left": ("moves to the left", "goes left", "slides to the left", "travels leftwards"),
    "right": ("moves to the right", "goes right", "slides to the right", "travels rightwards"),
    "up": ("moves up", "goes up", "rises", "travels upwards"),
    "down": ("moves down", "goes down", "sinks", "travels downwards"),
    "towards": ("moves towards {other}", "comes closer to {other}", "approaches {other}"),
    "away": ("moves away from {other}", "gets farther from {other}", "leaves {other}"),
    "grows": ("grows", "gets bigger", "becomes larger"),
    "shrinks": ("shrinks", "gets smaller", "becomes smaller"),
    "clockwise": ("circles clockwise", "goes around clockwise"),
    "counterclockwise": ("circles counterclockwise", "goes around counterclockwise"),
}

TIMED = {
    "steady": ("{name} {motion}",),
    "early": ("{name} {motion} and then stops", "{name} {motion} but stops halfway"),
    "late": ("{name} waits and then {motion}", "{name} stands still at first and then {motion}"),
    "faster": ("{name} {motion} faster and faster", "{name} speeds up as it {motion}"),
    "slower": ("{name} {motion} slower and slower", "{name} slows down as it {motion}"),
}
"""{timing: clauses}."""

PACES = {"quick": ("quickly", "fast"), "slow": ("slowly",)}
PACED = "{name} {motion} {pace}"

TOGETHER = ("{0} while {1}", "{0} and {1}", "as {0} , {1}", "here {0} and {1}")
"""Two movements that overlap in time, or whose order is not stated."""
IN_TURN = ("first {0} , then {1}", "{0} before {1}", "{1} after {0}", "once {0} , {1}")
"""The second movement starts after the first."""
BOTH_EARLY = ("{0} and {1} , then nothing moves", "at the start {0} and {1}")
BOTH_LATE = ("nothing moves at first , then {0} and {1}", "near the end {0} and {1}")
ORDER = (
    "{0} is the first to move and {1} the second",
    "{1} starts to move only when {0} has stopped",
    "{0} moves before {1} does",
)
"""The order alone."""
STANDING = ("{0} while {1} stands still", "{0} but {1} does not move")
"""Sentences with a third object; {0} is the rest."""


def clip_grammar() -> list[list[str]]:
    """All words of captions of clips, as lists of tokens."""
    patterns = [*TOGETHER, *IN_TURN, *BOTH_EARLY, *BOTH_LATE, *ORDER, *STANDING, PACED, "the"]
    names = [words for meaning, words in WORDS.items() if meaning not in SIZES]
    for group in (*MOTIONS.values(), *TIMED.values(), *PACES.values(), *names):
        patterns.extend(group)
    return [tokenize(re.sub(r"{\w+}", " ", pattern)) for pattern in patterns]


Choice = TypeVar("Choice")

PER_CLIP = 5
LONGEST = 22
"""Tokens of a caption; with start and end tokens it fits a padded length of 24."""
QUICK, SLOW = 0.36, 0.21
"""Pace of a line in pictures per clip: quick from the first, slow up to the second."""


def describe_clip(clip: Clip) -> tuple[str, ...]:
    """Write five different captions."""
    rng = clip.generator("captions")
    captions: list[str] = []
    while len(captions) < PER_CLIP:
        caption = _Sentence(clip, rng).write()
        if caption not in captions and len(caption.replace(",", " ,").split()) <= LONGEST:
            captions.append(caption)
    return tuple(captions)


class _Sentence:
    """One caption, by random choices."""

    def __init__(self, clip: Clip, rng: np.random.Generator) -> None:
        self.clip, self.rng = clip, rng
        self.movers = clip.actors[:MOVERS]

    def write(self) -> str:
        """Write a sentence about both movers, and perhaps a third object."""
        sentence = self._about_movers().replace(" ,", ",")
        still = self.clip.actors[MOVERS:]
        if self.rng.random() < 0.15 and "nothing" not in sentence:
            name = self._name(self._pick(still))
            pattern = STANDING["while" in sentence]
            sentence = pattern.format(sentence, name)
        return sentence

    def _about_movers(self) -> str:
        timings = [actor.movement.timing for actor in self.movers]
        if sorted(timings) == ["early", "late"]:
            return self._in_turn(sorted(self.movers, key=lambda a: a.movement.timing))
        clauses = [self._clause(actor, plain=False) for actor in self._shuffled()]
        if timings[0] == timings[1] and timings[0] in ("early", "late") and self.rng.random() < 0.5:
            clauses = [self._clause(actor, plain=True) for actor in self._shuffled()]
            return self._pick(BOTH_EARLY if timings[0] == "early" else BOTH_LATE).format(*clauses)
        return self._pick(TOGETHER).format(*clauses)

    def _in_turn(self, movers: Sequence[Actor]) -> str:
        """Movers in the first and in the second half of the clip."""
        draw = self.rng.random()
        motions = {actor.movement.motion for actor in movers}
        if draw < 0.25 and not motions & {"grows", "shrinks"}:
            return self._pick(ORDER).format(*map(self._name, movers))
        if draw < 0.6:
            return self._pick(IN_TURN).format(*(self._clause(a, plain=True) for a in movers))
        return self._pick(TOGETHER[1:2] + TOGETHER[3:]).format(
            *(self._clause(actor, plain=False) for actor in self._shuffled())
        )

    def _clause(self, actor: Actor, plain: bool) -> str:
        """Movement of one object, if ``plain`` without its timing."""
        movement, name = actor.movement, self._name(actor)
        motion = self._common(MOTIONS[movement.motion])
        if movement.other is not None:
            motion = motion.format(other=self._name(self.clip.actors[movement.other]))
        if plain or self.rng.random() < 0.6:
            return f"{name} {motion}"
        pace = _pace(actor)
        if pace and self.rng.random() < 0.5:
            return PACED.format(name=name, motion=motion, pace=self._pick(PACES[pace]))
        return self._pick(TIMED[movement.timing]).format(name=name, motion=motion)

    def _name(self, actor: Actor) -> str:
        return f"the {self._word(COLOURS[actor.colour])} {self._word(SHAPES[actor.shape])}"

    def _word(self, meaning: str) -> str:
        return self._common(WORDS[meaning])

    def _common(self, words: Sequence[str]) -> str:
        """The first, most common one with probability 3/4, else any."""
        return words[0] if self.rng.random() < 0.75 else self._pick(words)

    def _shuffled(self) -> list[Actor]:
        return [self.movers[k] for k in self.rng.permutation(MOVERS)]

    def _pick(self, choices: Sequence[Choice]) -> Choice:
        return choices[int(self.rng.integers(len(choices)))]


def _pace(actor: Actor) -> str | None:
    """``quick`` or ``slow`` for a line at constant pace, or None between the two."""
    movement = actor.movement
    if movement.timing not in ("steady", "early", "late"):
        return None
    pace = float(np.hypot(*movement.track.line)) * (1 if movement.timing == "steady" else 2)
    if pace >= QUICK:
        return "quick"
    return "slow" if 0 < pace <= SLOW else None
