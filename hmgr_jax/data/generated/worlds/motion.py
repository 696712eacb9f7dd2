"""Movement of an object in a clip: a track, and its timing.

Times run from 0 (the first frame) to 1 (the last). Played backwards, a movement has the same states
at mirrored times, so that no single frame and no unordered set of frames shows its direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TIMINGS = ("steady", "early", "late", "faster")
BACKWARDS = {
    "steady": "steady",
    "early": "late",
    "late": "early",
    "faster": "slower",
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "towards": "away",
    "grows": "shrinks",
    "clockwise": "counterclockwise",
}
"""{timing or motion: its reverse}."""
RISE = 2.2
"""Exponent of time in the progress of an accelerated movement."""


@dataclass(frozen=True)
class Track:
    """States of a movement: a straight line, a change of size, a full turn, or none of them."""

    x: float
    y: float
    """Centre of the line or turn."""
    radii: tuple[float, float]
    """Half the size at the start and at the end."""
    line: tuple[float, float] = (0.0, 0.0)
    """From the start to the end."""
    orbit: float = 0.0
    phase: float = 0.0
    """Radius of the turn, and its angle at the start; clockwise, as y points down."""

    def at(self, progress: np.ndarray) -> np.ndarray:
        """x, y and half the size at these shares of the track, float64 [T, 3]."""
        angle = self.phase + 2 * np.pi * progress
        x = self.x + (progress - 0.5) * self.line[0] + self.orbit * np.cos(angle)
        y = self.y + (progress - 0.5) * self.line[1] + self.orbit * np.sin(angle)
        radius = self.radii[0] + progress * (self.radii[1] - self.radii[0])
        return np.stack([x, y, radius], axis=-1)


@dataclass(frozen=True)
class Movement:
    """A track with ``motion`` and ``timing`` as they are played."""

    motion: str
    timing: str
    track: Track
    backwards: bool = False
    """Whether the track is played from its end to its start."""
    other: int | None = None
    """The object that is approached or left."""

    def reversed(self) -> Movement:
        """The same states in the opposite order."""
        motion, timing = (_REVERSED[name] for name in (self.motion, self.timing))
        return Movement(motion, timing, self.track, not self.backwards, self.other)

    def states(self, times: np.ndarray) -> np.ndarray:
        """x, y and half the size at these times, float64 [T, 3]."""
        if self.backwards:
            return self.track.at(_progress(_REVERSED[self.timing], 1 - times))
        return self.track.at(_progress(self.timing, times))


_REVERSED = BACKWARDS | {after: before for before, after in BACKWARDS.items()} | {"still": "still"}


def _progress(timing: str, times: np.ndarray) -> np.ndarray:
    """Share of its track that a movement played forwards has covered."""
    if timing == "early":
        return np.minimum(2 * times, 1.0)
    if timing == "late":
        return np.maximum(2 * times - 1, 0.0)
    return times**RISE if timing == "faster" else times
