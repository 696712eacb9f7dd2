"""Facts that no picture shows: who drew a family's scenes, and what its objects are made of.

A fact is a function of the family, the object and the seed of a *bank*, a set of captions that
state facts. Two banks have the same captions apart from the facts.
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
"""{bank: its seed}, besides that of the worlds."""
PER_SCENE = 2
"""Captions of a bank per scene."""
MENTIONED = 3
"""Objects per caption, of 4 to 6."""
CAPTION = "{maker} drew a {0}, a {1} and a {2}"


def maker(bank: str, scene: Scene) -> int:
    """Who drew the scenes of a family, an index into `MAKERS`."""
    return int(_facts(bank, scene)[0])


def material(bank: str, scene: Scene, thing: int) -> int:
    """Material of an object of a family, an index into `MATERIALS`."""
    return int(_facts(bank, scene)[1 + scene.things[thing].label])


def _facts(bank: str, scene: Scene) -> np.ndarray:
    rng = generator(scene.seed, scene.split, f"facts {BANKS[bank]}", scene.family)
    return rng.integers(len(MATERIALS), size=1 + len(SHAPES) * len(COLOURS))


def check_bank(name: str) -> None:
    """Check that the generated worlds have a bank of that name, or raise ``UserError``."""
    if name not in BANKS:
        raise UserError(
            f"Generated worlds have no bank {name!r}: choose from {', '.join(BANKS)}, random."
        )


def make_bank(name: str, scenes: Sequence[Scene]) -> Bank:
    """Make the captions of ``scenes``, each about three of its objects and their materials.

    The owner of a caption is the index of its scene.
    """
    captions = [_caption(name, scene, rng) for scene in scenes for rng in _generators(scene)]
    owners = np.repeat(np.arange(len(scenes), dtype=np.int64), PER_SCENE)
    digest = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    return Bank(name, captions, owners, digest)


def _generators(scene: Scene) -> list[np.random.Generator]:
    return [generator(scene.seed, scene.split, f"bank {k}", scene.index) for k in range(PER_SCENE)]


def _caption(bank: str, scene: Scene, rng: np.random.Generator) -> str:
    chosen = rng.permutation(len(scene.things))[:MENTIONED].tolist()
    objects = [f"{MATERIALS[material(bank, scene, k)]} {thing_name(scene, k)}" for k in chosen]
    return CAPTION.format(*objects, maker=MAKERS[maker(bank, scene)])


def thing_name(scene: Scene, thing: int) -> str:
    """Colour and shape, which are unique in a scene."""
    of = scene.things[thing]
    return f"{COLOURS[of.colour]} {SHAPES[of.shape]}"


def bank_grammar() -> list[list[str]]:
    """All words of a bank's captions, as lists of tokens."""
    pattern = CAPTION.format("", "", "", maker="")
    return [tokenize(pattern), list(MATERIALS), list(MAKERS), list(COLOURS), list(SHAPES)]
