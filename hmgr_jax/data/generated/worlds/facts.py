"""What no picture shows: who drew the scenes of a family, and what its objects are made of.

A fact is a function of the family, the object and the seed of a *bank*: captions that tell facts.
Two banks of different seeds have the same captions but for the facts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from hmgr_jax.data.generated.worlds.scene import COLOURS, SHAPES, Scene, generator
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.vqa.questions import Bank
from hmgr_jax.errors import UserError

MATERIALS = ("wood", "glass", "steel", "paper", "stone", "wool", "clay", "wax")
MAKERS = ("anna", "ben", "carol", "david", "emma", "frank", "grace", "henry")
BANKS = {"main": 1, "other": 2}
"""{bank: its seed}, added to that of the worlds."""
PER_SCENE = 2
"""Captions that a bank has of every scene."""
TOLD = 3
"""Objects that a caption tells the materials of, of 4 to 6."""
CAPTION = "{maker} drew a {0}, a {1} and a {2}"


def maker(bank: str, scene: Scene) -> int:
    """Who drew the scenes of a family, as a number of `MAKERS`."""
    return int(_facts(bank, scene)[0])


def material(bank: str, scene: Scene, thing: int) -> int:
    """What an object of a family is made of, as a number of `MATERIALS`."""
    return int(_facts(bank, scene)[1 + scene.things[thing].label])


def _facts(bank: str, scene: Scene) -> np.ndarray:
    rng = generator(scene.seed, scene.split, f"facts {BANKS[bank]}", scene.family)
    return rng.integers(len(MATERIALS), size=1 + len(SHAPES) * len(COLOURS))


def demand_bank(name: str) -> None:
    """Raise `UserError` unless the generated worlds have a bank of that name."""
    if name not in BANKS:
        raise UserError(
            f"Generated worlds have no bank {name!r}: choose from {', '.join(BANKS)}, random."
        )


def make_bank(name: str, scenes: Sequence[Scene]) -> Bank:
    """A caption of every drawing of three of its objects, with their materials.

    Captions are owned by the numbers of the scenes in ``scenes``.
    """
    captions = [_tell(name, scene, rng) for scene in scenes for rng in _generators(scene)]
    owners = np.repeat(np.arange(len(scenes), dtype=np.int64), PER_SCENE)
    digest = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    return Bank(name, captions, owners, digest)


def _generators(scene: Scene) -> list[np.random.Generator]:
    return [generator(scene.seed, scene.split, f"bank {k}", scene.index) for k in range(PER_SCENE)]


def _tell(bank: str, scene: Scene, rng: np.random.Generator) -> str:
    chosen = rng.permutation(len(scene.things))[:TOLD].tolist()
    told = [f"{MATERIALS[material(bank, scene, k)]} {thing_name(scene, k)}" for k in chosen]
    return CAPTION.format(*told, maker=MAKERS[maker(bank, scene)])


def thing_name(scene: Scene, thing: int) -> str:
    """Colour and shape, by which an object is one of a kind in its scene."""
    of = scene.things[thing]
    return f"{COLOURS[of.colour]} {SHAPES[of.shape]}"


def bank_grammar() -> list[list[str]]:
    """Every word that a caption of a bank can hold, as lists of tokens."""
    pattern = CAPTION.format("", "", "", maker="")
    return [tokenize(pattern), list(MATERIALS), list(MAKERS), list(COLOURS), list(SHAPES)]
