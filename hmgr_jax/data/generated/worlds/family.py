"""A family of scenes with its captions, as a function of seed, split and number."""

from __future__ import annotations

from dataclasses import dataclass

from hmgr_jax.data.generated.worlds.captions import Caption, describe
from hmgr_jax.data.generated.worlds.scene import Scene, draw_scenes, generator

ATTEMPTS = 1000


@dataclass(frozen=True)
class Family:
    """Four scenes that differ only in who stands where, and five captions for each."""

    scenes: tuple[Scene, ...]
    captions: tuple[tuple[Caption, ...], ...]


def make_family(seed: int, split: str, number: int) -> Family:
    """Family `number` of a split: drawn anew until every sibling has its five captions."""
    for attempt in range(ATTEMPTS):
        scenes = draw_scenes(seed, split, number, attempt)
        captions = describe(scenes, generator(seed, split, "captions", number, attempt))
        if captions is not None:
            return Family(scenes, tuple(tuple(five) for five in captions))
    raise RuntimeError(f"no describable family {number} of {split} in {ATTEMPTS} draws")
