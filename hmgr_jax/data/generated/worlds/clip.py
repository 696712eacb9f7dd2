"""Clips of coloured shapes, of which two move, in families of four siblings.

Siblings share objects, background, number of frames and all states of every object; each of the two
movers is played forwards or backwards. The frames of an object are thus the same in all four, in
another order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmgr_jax.data.generated.worlds.motion import TIMINGS, Movement, Track
from hmgr_jax.data.generated.worlds.scene import (
    COLOURS,
    SHAPES,
    SIBLINGS,
    Backdrop,
    draw_backdrop,
    generator,
)

FEWEST_FRAMES, MOST_FRAMES = 5, 8
MOVERS = 2
STILL = (1, 2)
"""Smallest and largest number of still objects."""
RADII = (0.065, 0.095)
GROWING, GROWTH = (0.045, 0.085), 1.45
"""Half the size of an object; of one that grows, and the factor of its growth."""
LENGTHS = (0.16, 0.26)
SLANT = 0.1
"""Length of a line, and its largest slant as a share of that. In longer lines the free space of the
first frame would reveal the direction."""
ORBIT = (0.13, 0.16)
EDGE, GAP = 0.02, 0.03
"""Free space between objects and the edge of the picture, and between any two objects."""
NEAR = (0.03, 0.12)
"""Free space between an object and the one it approached."""
KINDS = ("across", "across", "along", "along", "approach", "approach", "size", "turn")
TRIES = 200


@dataclass(frozen=True)
class Actor:
    """One object of a clip: indices into SHAPES and COLOURS, and its movement."""

    shape: int
    colour: int
    movement: Movement


@dataclass(frozen=True)
class Shown:
    """An object in one frame, with half its size."""

    shape: int
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Clip:
    """One clip; actor k of a clip is actor k of each of its siblings. Movers come first."""

    seed: int
    split: str
    index: int
    actors: tuple[Actor, ...]
    frames: int
    backdrop: Backdrop

    @property
    def family(self) -> int:
        """Number of the family within the split."""
        return self.index // SIBLINGS

    @property
    def times(self) -> np.ndarray:
        """Time of every frame, float64 [T]."""
        return np.arange(self.frames) / (self.frames - 1)

    def states(self, times: np.ndarray) -> np.ndarray:
        """x, y and half the size of every object, float64 [N, T, 3]."""
        return np.stack([actor.movement.states(times) for actor in self.actors])

    def generator(self, purpose: str) -> np.random.Generator:
        """Random stream by the clip's seed, split and index."""
        return generator(self.seed, self.split, f"clip {purpose}", self.index)


def draw_clips(seed: int, split: str, family: int) -> tuple[Clip, ...]:
    """The four siblings of a family."""
    rng = generator(seed, split, "clips", family)
    count = MOVERS + int(rng.integers(STILL[0], STILL[1] + 1))
    colours = rng.permutation(len(COLOURS))[:count].tolist()
    shapes = rng.integers(len(SHAPES), size=count).tolist()
    frames = int(rng.integers(FEWEST_FRAMES, MOST_FRAMES + 1))
    movements = _draw_movements(rng, count)
    backdrop = draw_backdrop(rng)
    clips = []
    for sibling, turned in enumerate(rng.permutation(SIBLINGS).tolist()):
        played = [
            m.reversed() if k < MOVERS and turned >> k & 1 else m for k, m in enumerate(movements)
        ]
        actors = tuple(map(Actor, shapes, colours, played))
        clips.append(Clip(seed, split, family * SIBLINGS + sibling, actors, frames, backdrop))
    return tuple(clips)


def _draw_movements(rng: np.random.Generator, count: int) -> list[Movement]:
    """Draw movements of all objects that keep a distance of GAP."""
    kinds = [KINDS[rng.integers(len(KINDS))] for _ in range(MOVERS)]
    while True:  # keep the kinds, or those that need little room would be more frequent
        still = [_draw_still(rng) for _ in range(count - MOVERS)]
        moving: list[Movement] = []
        for _ in range(TRIES if _apart(still) else 0):
            drawn = _draw_moving(rng, kinds[len(moving)], still)
            if _apart([*still, *moving, drawn]):
                moving.append(drawn)
            if len(moving) == MOVERS:
                return [*moving, *still]


def _draw_still(rng: np.random.Generator) -> Movement:
    radius = float(rng.uniform(*RADII))
    x, y = rng.uniform(EDGE + radius, 1 - EDGE - radius, size=2).tolist()
    return Movement("still", "steady", Track(x, y, (radius, radius)))


def _draw_moving(rng: np.random.Generator, kind: str, still: list[Movement]) -> Movement:
    """Draw a movement, played forwards; it may leave the picture."""
    timing = TIMINGS[rng.integers(len(TIMINGS))]
    radius, length = float(rng.uniform(*RADII)), float(rng.uniform(*LENGTHS))
    x, y = rng.random(2).tolist()
    if kind == "size":
        small = float(rng.uniform(*GROWING))
        return Movement("grows", timing, Track(x, y, (small, GROWTH * small)))
    if kind == "turn":  # at another pace five frames would not show the direction
        orbit, phase = float(rng.uniform(*ORBIT)), float(rng.uniform(0, 2 * np.pi))
        track = Track(x, y, (radius, radius), orbit=orbit, phase=phase)
        return Movement("clockwise", "steady", track)
    if kind == "approach":
        return _approach(rng, timing, radius, length, still)
    forth, slant = rng.random() < 0.5, float(rng.uniform(-SLANT, SLANT))
    step = (length if forth else -length, slant * length)
    if kind == "across":
        motion = "right" if forth else "left"
        return Movement(motion, timing, Track(x, y, (radius, radius), step))
    motion = "down" if forth else "up"
    return Movement(motion, timing, Track(x, y, (radius, radius), step[::-1]))


def _approach(
    rng: np.random.Generator, timing: str, radius: float, length: float, still: list[Movement]
) -> Movement:
    """Draw a line towards a still object."""
    chosen = int(rng.integers(len(still)))
    goal = still[chosen].track
    angle, gap = rng.uniform(0, 2 * np.pi), rng.uniform(*NEAR)
    way = np.array([np.cos(angle), np.sin(angle)])
    middle = np.array([goal.x, goal.y]) - way * (goal.radii[1] + radius + gap + length / 2)
    line = (float(length * way[0]), float(length * way[1]))
    track = Track(float(middle[0]), float(middle[1]), (radius, radius), line)
    return Movement("towards", timing, track, other=MOVERS + chosen)


def _apart(movements: list[Movement]) -> bool:
    """Whether all stay inside the picture, and the last is clear of all others at all times."""
    states = np.stack([m.track.at(np.linspace(0, 1, 13)) for m in movements])
    place, radius = states[..., :2], states[..., 2]
    free = np.minimum(place, 1 - place).min(axis=-1) - radius
    if free.min() < EDGE:
        return False
    for k in range(len(movements) - 1):
        gap = np.linalg.norm(place[k, :, None] - place[-1], axis=-1)
        if (gap - radius[k, :, None] - radius[-1]).min() < GAP * 0.99:
            return False
    return True
