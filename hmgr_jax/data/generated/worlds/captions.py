"""Families of scenes with five captions each, true of their scene and false of its siblings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from hmgr_jax.data.generated.worlds.scene import Scene, draw_scenes, generator
from hmgr_jax.data.generated.worlds.statements import (
    RELATIONS,
    Statement,
    every_statement,
    truth_table,
)
from hmgr_jax.data.generated.worlds.wording import say, subjects

PER_SCENE = 5
SLOTS = ("pair", "pair", "place", "place", "other")
"""Topics of the five captions: distances of pairs, places of objects, a direction."""
OTHER = ("side", "side", "aligned")
DOUBLE = 0.3
"""Share of captions that join two statements, neither of which is sufficient alone."""
Choice = tuple[int, ...]


@dataclass(frozen=True)
class Caption:
    """A sentence, and the one or two statements that it makes; all of them are needed."""

    text: str
    statements: tuple[Statement, ...]


def describe(scenes: Sequence[Scene], rng: np.random.Generator) -> list[list[Caption]] | None:
    """Describe each of the siblings by five captions; None if one cannot be distinguished."""
    table = truth_table(scenes)
    captions = []
    for sibling, scene in enumerate(scenes):
        candidates = _Candidates(len(scene.things), table, sibling, rng)
        chosen = _choose(candidates, rng)
        if chosen is None:
            return None
        stated = [tuple(candidates.known.all[k] for k in choice) for choice in chosen]
        captions.append([Caption(say(statements, scene, rng), statements) for statements in stated])
    return captions


def _choose(candidates: _Candidates, rng: np.random.Generator) -> list[Choice] | None:
    """Statements of the five captions of a scene, all different: one choice per slot."""
    chosen: list[Choice] = []
    for slot in SLOTS:
        kind = OTHER[rng.integers(len(OTHER))] if slot == "other" else slot
        choice = candidates.draw(kind, chosen)
        if choice is None and kind in ("aligned", "place"):
            choice = candidates.draw("side", chosen)
        if choice is None:
            return None
        chosen.append(choice)
    return chosen


class _Candidates:
    """Single statements and pairs of statements that are true of one sibling only.

    Rows of `single` [K, 1] and `double` [K, 2] are indices into the statements of `known`. The two
    statements of a pair share their subject and no other object, and neither is sufficient alone.
    """

    def __init__(
        self, count: int, table: np.ndarray, sibling: int, rng: np.random.Generator
    ) -> None:
        self.known, self.rng = _statements(count), rng
        true = table[sibling] == 1
        doubt = np.delete(table, sibling, axis=0) != -1
        self.single = np.flatnonzero(true & ~doubt.any(axis=0))[:, None]
        rest = np.flatnonzero(true & doubt.any(axis=0))
        about, subject = self.known.about[rest], self.known.subject[rest]
        size = about.sum(axis=1)
        left = doubt[:, rest].T.astype(int) @ doubt[:, rest].astype(int)
        fits = (left == 0) & (about @ about.T == 1) & (subject @ subject.T == 1)
        first, second = np.nonzero(fits & (size[:, None] + size < 6))
        self.double = rest[np.stack([first, second], axis=1)]

    def draw(self, kind: str, used: Sequence[Choice]) -> Choice | None:
        """Draw one statement of a kind, or two; None if there is no unused one."""
        makers = [self._draw_single, self._draw_double]
        if self.rng.random() < DOUBLE:
            makers.reverse()
        for maker in makers:
            choice = maker(kind, used)
            if choice is not None:
                return choice
        return None

    def _draw_single(self, kind: str, used: Sequence[Choice]) -> Choice | None:
        return self._pick(self.single[self.known.kind[self.single[:, 0]] == kind], used)

    def _draw_double(self, kind: str, used: Sequence[Choice]) -> Choice | None:
        """Draw a pair without a direction or, for directions, of two of them."""
        kinds = self.known.kind[self.double]
        fits, sides = (kinds == kind).any(axis=1), (kinds == "side").sum(axis=1)
        for wanted in (2,) if kind == "side" else (0, 1):
            choice = self._pick(self.double[fits & (sides == wanted)], used)
            if choice is not None:
                return choice
        return None

    def _pick(self, rows: np.ndarray, used: Sequence[Choice]) -> Choice | None:
        """Draw an unused row: first a relation, then one of its statements."""
        free = [tuple(row) for row in rows.tolist() if tuple(row) not in used]
        if not free:
            return None
        names = ["+".join(sorted(self.known.all[k].relation for k in row)) for row in free]
        different = sorted(set(names))
        name = different[self.rng.integers(len(different))]
        same = [row for row, its in zip(free, names, strict=True) if its == name]
        return same[self.rng.integers(len(same))]


@dataclass(frozen=True)
class _Statements:
    """All M statements about N objects, as arrays."""

    all: tuple[Statement, ...]
    kind: np.ndarray
    """Kind of the relation, [M]."""
    about: np.ndarray
    """1 where the statement is about the object, int [M, N]."""
    subject: np.ndarray
    """1 where the object can be the subject of the sentence, int [M, N]."""


@cache
def _statements(count: int) -> _Statements:
    everything = every_statement(count)
    about, subject = np.zeros((2, len(everything), count), int)
    for row, statement in enumerate(everything):
        about[row, list(statement.objects)] = 1
        subject[row, list(subjects(statement))] = 1
    kinds = np.array([RELATIONS[statement.relation].kind for statement in everything])
    return _Statements(everything, kinds, about, subject)


ATTEMPTS = 1000


@dataclass(frozen=True)
class Family:
    """Four scenes that differ only in the positions of objects, and five captions each."""

    scenes: tuple[Scene, ...]
    captions: tuple[tuple[Caption, ...], ...]


def make_family(seed: int, split: str, number: int) -> Family:
    """Make a family of a split, drawn again until every sibling has its five captions."""
    for attempt in range(ATTEMPTS):
        scenes = draw_scenes(seed, split, number, attempt)
        captions = describe(scenes, generator(seed, split, "captions", number, attempt))
        if captions is not None:
            return Family(scenes, tuple(tuple(five) for five in captions))
    raise RuntimeError(f"no describable family {number} of {split} in {ATTEMPTS} draws")
