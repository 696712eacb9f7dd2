"""Statements about a scene: relations between objects, and when they hold.

Every relation leaves a gap between clearly true and clearly false, so that no caption depends on a
pixel. Distances are between centres, in fractions of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations

import numpy as np

from hmgr_jax.data.generated.worlds.scene import Scene

Judge = Callable[..., np.ndarray]
ASIDE = (0.12, 0.04)
"""Left of, above: true above the first distance on that axis, false below the second."""
EDGE = (0.36, 0.46)
"""At the left, at the top: true below the first distance from the edge, false above the second."""
LEVEL = (0.05, 0.12)
"""In the same row or column: true below the first distance, false above the second."""
NEAR = (0.28, 0.36)
FAR = (0.50, 0.42)
MARGIN = 0.04
"""Smallest difference of distances for a nearest neighbour, or the closer of two."""
BETWEEN = (float(np.cos(np.radians(125))), float(np.cos(np.radians(100))))
"""Between: cosines of the angle between the other two, true below the first, false above the
second."""


@dataclass(frozen=True)
class Relation:
    """A relation of `arity` objects, of which the last two are exchangeable if `symmetric`.

    `kind` is "pair" if distances of pairs decide (so that facts about single objects do not),
    "aligned" for rows and columns, "side" for directions, "place" if the place of one object
    decides.
    """

    arity: int
    kind: str
    symmetric: bool
    judge: Judge


@dataclass(frozen=True)
class Statement:
    """A relation and the objects it is about, as indices into `Scene.things`."""

    relation: str
    objects: tuple[int, ...]


def holds(statement: Statement, scene: Scene) -> bool:
    """Whether the statement is clearly true of the scene."""
    return truth(statement, scene) == 1


def truth(statement: Statement, scene: Scene) -> int:
    """1 for clearly true, -1 for clearly false, 0 for neither."""
    objects = np.array(statement.objects)[:, None]
    return int(RELATIONS[statement.relation].judge(scene.places[None], *objects)[0, 0])


@cache
def every_statement(count: int) -> tuple[Statement, ...]:
    """All statements about `count` objects, relation by relation."""
    return tuple(
        Statement(name, objects)
        for name, relation in RELATIONS.items()
        for objects in _choices(relation, count)
    )


def truth_table(scenes: Sequence[Scene]) -> np.ndarray:
    """Truth (1, 0, -1) of `every_statement` in each of the siblings, int8 [S, M]."""
    places = np.stack([scene.places for scene in scenes])
    count = places.shape[1]
    return np.concatenate(
        [
            relation.judge(places, *np.array(_choices(relation, count)).T)
            for relation in RELATIONS.values()
        ],
        axis=1,
    )


@cache
def _choices(relation: Relation, count: int) -> tuple[tuple[int, ...], ...]:
    """Tuples of different objects, without equivalent ones."""
    if not relation.symmetric:
        return tuple(permutations(range(count), relation.arity))
    if relation.arity == 2:
        return tuple(combinations(range(count), 2))
    return tuple(p for p in permutations(range(count), 3) if p[1] < p[2])


# The judges below take centres [S, N, 2] and M objects for each role, and return int8 [S, M].


def _verdict(yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    return yes.astype(np.int8) - no.astype(np.int8)


def _distance(places: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    gap = places[:, a] - places[:, b]
    return np.hypot(gap[..., 0], gap[..., 1])


def _nearest(places: np.ndarray) -> np.ndarray:
    """Distance of every object from its second and its nearest neighbour, [2, S, N]."""
    gaps = places[:, :, None] - places[:, None]
    apart = np.hypot(gaps[..., 0], gaps[..., 1]) + 9 * np.eye(places.shape[1])
    return np.sort(apart, axis=2)[:, :, 1::-1].transpose(2, 0, 1)


def _aside(axis: int) -> Judge:
    def judge(places: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        step = places[:, b, axis] - places[:, a, axis]
        return _verdict(step > ASIDE[0], step < ASIDE[1])

    return judge


def _at(axis: int, far: bool) -> Judge:
    def judge(places: np.ndarray, a: np.ndarray) -> np.ndarray:
        off = 1 - places[:, a, axis] if far else places[:, a, axis]
        return _verdict(off < EDGE[0], off > EDGE[1])

    return judge


def _level(axis: int) -> Judge:
    def judge(places: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        step = np.abs(places[:, b, axis] - places[:, a, axis])
        return _verdict(step < LEVEL[0], step > LEVEL[1])

    return judge


def _next_to(places: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Close, and one of the two has no closer neighbour."""
    apart, nearest = _distance(places, a, b), _nearest(places)[1]
    neighbours = apart <= np.maximum(nearest[:, a], nearest[:, b]) + 1e-9
    return _verdict((apart < NEAR[0]) & neighbours, apart > NEAR[1])


def _far_from(places: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    apart = _distance(places, a, b)
    return _verdict(apart > FAR[0], apart < FAR[1])


def _nearest_to(places: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a` is closer to `b` than any other object is."""
    apart, (second, nearest) = _distance(places, a, b), _nearest(places)[:, :, b]
    yes = (apart <= nearest + 1e-9) & (second > nearest + MARGIN)
    return _verdict(yes, apart > nearest + MARGIN)


def _closer_to(places: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """`a` is closer to `b` than to `c`."""
    gain = _distance(places, a, c) - _distance(places, a, b)
    return _verdict(gain > 2 * MARGIN, gain < -MARGIN)


def _between(places: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Seen from `a`, `b` and `c` lie in nearly opposite directions."""
    ways = [places[:, other] - places[:, a] for other in (b, c)]
    lengths = [np.hypot(way[..., 0], way[..., 1]) for way in ways]
    cosine = (ways[0] * ways[1]).sum(-1) / (lengths[0] * lengths[1])
    return _verdict(cosine < BETWEEN[0], cosine > BETWEEN[1])


RELATIONS = {
    "at the left": Relation(1, "place", False, _at(0, far=False)),
    "at the right": Relation(1, "place", False, _at(0, far=True)),
    "at the top": Relation(1, "place", False, _at(1, far=False)),
    "at the bottom": Relation(1, "place", False, _at(1, far=True)),
    "left of": Relation(2, "side", False, _aside(0)),
    "above": Relation(2, "side", False, _aside(1)),
    "same row": Relation(2, "aligned", True, _level(1)),
    "same column": Relation(2, "aligned", True, _level(0)),
    "next to": Relation(2, "pair", True, _next_to),
    "far from": Relation(2, "pair", True, _far_from),
    "nearest to": Relation(2, "pair", False, _nearest_to),
    "closer to": Relation(3, "pair", False, _closer_to),
    "between": Relation(3, "pair", True, _between),
}
"""Relations; "right of" and "below" are worded by "left of" and "above"."""
