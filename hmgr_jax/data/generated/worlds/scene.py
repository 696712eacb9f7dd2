"""Scenes of coloured shapes, in families of four siblings that share objects and places.

Coordinates are fractions of the picture: x to the right, y downwards, both in 0..1.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import UserError

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SIZES = ("small", "large")
RADII = (0.068, 0.105)
"""Half the width of small and large objects."""
SIBLINGS = 4
FEWEST, MOST = 4, 6
SPAN = 0.66
"""Side of the square of a family's places, which is shifted at random within the picture."""
APART = 0.21
"""Smallest distance of two places, at which large objects touch."""
REACH = (0.27, 0.33)
"""Radius of the ring of a family's places; its gaps are uneven."""
WOBBLE, SPREAD, ROUND = 0.06, 3.0, 1.12
"""Deviation of a place from the ring (a share of the radius), evenness of the gaps (a Dirichlet
concentration), and the largest ratio of two distances from the centre of the places."""
TRIES = 32  # rings drawn at a time
EDGE = 0.115
"""Smallest distance of a centre from the edge of the picture."""


@dataclass(frozen=True)
class Thing:
    """One object: indices into SHAPES, COLOURS and SIZES, and its centre."""

    shape: int
    colour: int
    size: int
    x: float
    y: float

    @property
    def radius(self) -> float:
        """Half the side of the bounding square."""
        return RADII[self.size]

    @property
    def label(self) -> int:
        """Class of shape and colour, 0..63."""
        return self.shape * len(COLOURS) + self.colour


@dataclass(frozen=True)
class Backdrop:
    """A pale background: a tint (0..255), its slope across the picture, and a faint ripple."""

    tint: tuple[float, float, float]
    slope: tuple[float, float]
    wave: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """One scene; object k of a scene is object k of each of its siblings, at another place."""

    seed: int
    split: str
    index: int
    things: tuple[Thing, ...]
    backdrop: Backdrop

    @property
    def family(self) -> int:
        """Number of the family within the split."""
        return self.index // SIBLINGS

    @property
    def kind(self) -> int:
        """Index of the most frequent shape, the class of a scene and its family.

        Ties are broken by the larger objects, then by the order of SHAPES.
        """
        size = np.zeros(len(SHAPES), np.int64)
        for thing in self.things:
            size[thing.shape] += 100 + thing.size
        return int(np.argmax(size))

    @property
    def places(self) -> np.ndarray:
        """Centres of the objects, float64 [N, 2]."""
        return np.array([(thing.x, thing.y) for thing in self.things])

    def generator(self, purpose: str) -> np.random.Generator:
        """Random stream by the scene's seed, split and index."""
        return generator(self.seed, self.split, purpose, self.index)


def generator(
    seed: int, split: str, purpose: str, number: int, attempt: int = 0
) -> np.random.Generator:
    """Random stream of a key, independent of all others.

    Keys have a fixed number of words: a seed sequence pads with zeros, so that keys of different
    lengths could give the same stream.
    """
    key = (zlib.crc32(split.encode()), zlib.crc32(purpose.encode()), number, attempt)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def draw_scenes(seed: int, split: str, family: int, attempt: int) -> tuple[Scene, ...]:
    """The four siblings of a family; `attempt` counts the draws that could not be described."""
    rng = generator(seed, split, "scenes", family, attempt)
    count = int(rng.integers(FEWEST, MOST + 1))
    labels = rng.permutation(len(SHAPES) * len(COLOURS))[:count].tolist()
    sizes = rng.integers(len(SIZES), size=count).tolist()
    kinds = [(*divmod(k, len(COLOURS)), size) for k, size in zip(labels, sizes, strict=True)]
    places = _draw_places(rng, count)
    backdrop = draw_backdrop(rng)
    play = 1 - 2 * EDGE - SPAN
    scenes = []
    for sibling, order in enumerate(_draw_orders(rng, count)):
        # The whole scene is shifted, so that the place of one object says little.
        seats = (places[list(order)] + EDGE + play * rng.random(2)).tolist()
        things = tuple(Thing(*kind, *seat) for kind, seat in zip(kinds, seats, strict=True))
        scenes.append(Scene(seed, split, family * SIBLINGS + sibling, things, backdrop))
    return tuple(scenes)


def _draw_orders(rng: np.random.Generator, count: int) -> list[tuple[int, ...]]:
    """Four different assignments of objects to places."""
    orders: list[tuple[int, ...]] = []
    while len(orders) < SIBLINGS:
        order = tuple(rng.permutation(count).tolist())
        if order not in orders:
            orders.append(order)
    return orders


def _draw_places(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw places on a ring, at least APART, in a square of side SPAN, float64 [count, 2].

    On a ring, "far from", "next to" and "between" cannot be inferred from the place of one object.
    """
    while True:
        gaps = rng.dirichlet(np.full(count, SPREAD), size=TRIES)
        turn = 2 * np.pi * (gaps.cumsum(axis=1) + rng.random((TRIES, 1)))
        reach = 1 + WOBBLE * rng.uniform(-1, 1, size=(TRIES, count))
        reach *= rng.uniform(*REACH, size=(TRIES, 1))
        rings = reach[..., None] * np.stack([np.cos(turn), np.sin(turn)], axis=2) + SPAN / 2
        fits = np.flatnonzero(_is_round(rings) & (_closest(rings) >= APART) & _is_inside(rings))
        if len(fits):
            return rings[fits[0]]


def _is_round(rings: np.ndarray) -> np.ndarray:
    """Whether all places of a ring [T, N, 2] are about equally far from their centre, bool [T]."""
    out = np.linalg.norm(rings - rings.mean(axis=1, keepdims=True), axis=2)
    return out.max(axis=1) <= ROUND * out.min(axis=1)


def _closest(rings: np.ndarray) -> np.ndarray:
    """Smallest distance of two places of a ring [T, N, 2], float [T]."""
    first, second = np.triu_indices(rings.shape[1], 1)
    return np.linalg.norm(rings[:, first] - rings[:, second], axis=2).min(axis=1)


def _is_inside(rings: np.ndarray) -> np.ndarray:
    """Whether a ring [T, N, 2] stays in its square, bool [T]."""
    return np.abs(rings - SPAN / 2).max(axis=(1, 2)) <= SPAN / 2


def draw_backdrop(rng: np.random.Generator) -> Backdrop:
    """Draw a pale background, which contrasts with all objects."""
    grey = rng.uniform(212, 238)
    red, green, blue = (grey + rng.uniform(-12, 12, size=3)).tolist()
    right, down = rng.uniform(-16, 16, size=2).tolist()
    across, along, phase = (rng.uniform(0, 1, size=3) * (3, 3, 2 * np.pi)).tolist()
    return Backdrop((red, green, blue), (right, down), (across, along, phase))


def check_sizes(source: str, seed: int, sizes: Mapping[str, int]) -> None:
    """Check a seed and the {split: size} of ``data.source``, which count members of families.

    Raises:
        UserError: the seed is negative, or a size is not a positive multiple of 4.
    """
    if seed < 0:
        raise UserError(f"data.{source}.seed is {seed}: give 0 or a larger number.")
    for name, size in sizes.items():
        if size < SIBLINGS or size % SIBLINGS:
            raise UserError(
                f"data.{source}.{name} is {size}, but families have {SIBLINGS} members: give a "
                f"positive multiple of {SIBLINGS}."
            )
