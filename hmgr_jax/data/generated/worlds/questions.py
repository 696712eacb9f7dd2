"""Questions about generated scenes, answered by the picture or only by a bank of captions.

A picture shows colours, shapes, counts and positions. Who drew it and what an object is made of is
stated in captions about its siblings (`hmgr_jax.data.generated.worlds.facts`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hmgr_jax.data.generated.worlds.captions import make_family
from hmgr_jax.data.generated.worlds.facts import (
    MAKERS,
    MATERIALS,
    bank_grammar,
    check_bank,
    make_bank,
    maker,
    material,
    thing_name,
)
from hmgr_jax.data.generated.worlds.lexicon import choose_vocabulary
from hmgr_jax.data.generated.worlds.regions import make_regions
from hmgr_jax.data.generated.worlds.scene import COLOURS, MOST, SHAPES, SIBLINGS, Scene, check_sizes
from hmgr_jax.data.generated.worlds.statements import Statement, truth
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.data.vqa.questions import (
    ANNOTATORS,
    AnswerSource,
    Bank,
    Counts,
    Pictures,
    QuestionSource,
    question_split,
)

VERSION = 1
"""Raise it with any change of a question, an answer or a caption of a bank."""
ROLES = ("train", "dev", "test")
SEEN, MAKER, MATERIAL = "seen", "maker", "material"
"""Kinds of questions: about the picture, and about two facts of a bank."""
YES_NO = ("yes", "no")
ANSWERS = (*YES_NO, *map(str, range(MOST + 1)), *COLOURS, *SHAPES, *MATERIALS, *MAKERS)
ERROR_RATE = 0.3
"""Share of questions of which one of the ten annotators may answer wrongly."""
SIDES = ("left of", "above")


class Question(NamedTuple):
    """A question about a scene."""

    text: str
    answer: str
    others: tuple[str, ...]
    """Answers of the same type."""
    kind: str


def ask(scene: Scene, facts: str) -> list[Question]:
    """Make six questions about a scene: three about the picture, three about facts of a bank."""
    rng = scene.generator("questions")
    looks = [*_unique_looks(scene, rng)]
    first = looks[rng.integers(len(looks))] if looks else _how_many(scene, rng)
    things = rng.permutation(len(scene.things))[:2].tolist()
    made = [
        Question(
            f"what is the {thing_name(scene, k)} made of",
            MATERIALS[material(facts, scene, k)],
            MATERIALS,
            MATERIAL,
        )
        for k in things
    ]
    drew = Question("who drew this", MAKERS[maker(facts, scene)], MAKERS, MAKER)
    return [first, _how_many(scene, rng), _where(scene, rng), *made, drew]


def _unique_looks(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """The colour of a unique shape, the shape of an object of a unique colour."""
    shapes = [thing.shape for thing in scene.things]
    colours = [thing.colour for thing in scene.things]
    for thing in scene.things:
        colour, shape = COLOURS[thing.colour], SHAPES[thing.shape]
        if shapes.count(thing.shape) == 1:
            yield Question(f"what colour is the {shape}", colour, COLOURS, SEEN)
        if colours.count(thing.colour) == 1:
            yield Question(f"what shape is {colour}", shape, SHAPES, SEEN)


def _how_many(scene: Scene, rng: np.random.Generator) -> Question:
    thing = scene.things[rng.integers(len(scene.things))]
    if rng.random() < 0.5:
        what, count = SHAPES[thing.shape], [t.shape for t in scene.things].count(thing.shape)
    else:
        what, count = COLOURS[thing.colour], [t.colour for t in scene.things].count(thing.colour)
    numbers = tuple(map(str, range(1, MOST + 1)))
    return Question(f"how many are {what}", str(count), numbers, SEEN)


def _where(scene: Scene, rng: np.random.Generator) -> Question:
    """Whether one object is clearly left of or above another, or clearly not."""
    while True:
        relation = SIDES[rng.integers(len(SIDES))]
        a, b = rng.permutation(len(scene.things))[:2].tolist()
        verdict = truth(Statement(relation, (a, b)), scene)
        if verdict:
            names = thing_name(scene, a), thing_name(scene, b)
            text = f"is the {names[0]} {relation} the {names[1]}"
            return Question(text, YES_NO[int(verdict < 0)], YES_NO, SEEN)


def question_grammar() -> list[list[str]]:
    """All words of questions, as lists of tokens."""
    patterns = ("what is the made of", "who drew this", "what colour is the", "what shape is")
    more = ("how many are", *(f"is the {side} the" for side in SIDES))
    return [tokenize(pattern) for pattern in (*patterns, *more)]


class Worlds(NamedTuple):
    """Scenes to ask about; sizes count scenes, in multiples of 4."""

    seed: int = 0
    train: int = 2000
    dev: int = 200
    test: int = 400
    facts: str = "main"
    """The bank with the correct facts."""

    def scenes(self, role: str) -> list[Scene]:
        """Scenes of a split, as of `hmgr_jax.data.generated.worlds`."""
        count = getattr(self, role) // SIBLINGS
        return [s for n in range(count) for s in make_family(self.seed, role, n).scenes]

    def first(self, role: str) -> int:
        """Index of the first scene of a split among all scenes."""
        return sum(getattr(self, before) for before in ROLES[: ROLES.index(role)])

    def check(self) -> None:
        """Check the sizes, the seed and the bank; ``UserError`` names an invalid one."""
        check_sizes("questions", self.seed, {role: getattr(self, role) for role in ROLES})
        check_bank(self.facts)


def open_bank(worlds: Worlds, name: str) -> Bank:
    """Make the captions of a bank about all scenes of all splits.

    Raises:
        UserError: the bank is unknown.
    """
    worlds.check()
    check_bank(name)
    return make_bank(name, [scene for role in ROLES for scene in worlds.scenes(role)])


def open_questions(
    worlds: Worlds, roles: Sequence[str] = ROLES, known: Vocabulary | None = None
) -> DataSet:
    """Make six questions about every scene, with the answers of ten annotators.

    Pictures give regions as in `hmgr_jax.data.generated.worlds`. ``known`` is the vocabulary of a
    checkpoint.

    Raises:
        UserError: a size, the seed, the bank or the vocabulary is invalid.
    """
    worlds.check()
    grammar = [*question_grammar(), *bank_grammar()]
    vocabulary = choose_vocabulary(grammar, known, "questions")
    splits = {role: _make_split(worlds, role, vocabulary) for role in roles}
    made = f"questions {VERSION} {list(worlds)}"
    return DataSet("questions", splits, vocabulary, hashlib.sha256(made.encode()).hexdigest())


def _make_split(worlds: Worlds, role: str, vocabulary: Vocabulary) -> Split:
    scenes, first = worlds.scenes(role), worlds.first(role)
    asked = [ask(scene, worlds.facts) for scene in scenes]
    questions = [question for of_scene in asked for question in of_scene]
    numbers = np.arange(first, first + len(scenes))
    pictures = Pictures(make_regions(scenes), numbers.astype(np.int32), numbers)
    texts = [question.text for question in questions]
    source = QuestionSource(
        CaptionSource([vocabulary.tokenize(t) for t in texts], vocabulary, captions=texts),
        pictures,
        of=np.repeat(np.arange(len(scenes)), [len(of_scene) for of_scene in asked]),
        first=first * len(asked[0]),
    )
    opinions = scenes[0].generator("annotators")
    return question_split(
        role,
        source,
        AnswerSource(ANSWERS),
        ids=[
            f"{role}/{s.index:06d}?{k}"
            for s, six in zip(scenes, asked, strict=True)
            for k in range(len(six))
        ],
        counts=Counts([_opinions(q, opinions) for q in questions], len(ANSWERS)),
        kinds=np.array([question.kind for question in questions]),
    )


def _opinions(question: Question, rng: np.random.Generator) -> dict[int, int]:
    """{answer: number of the ten annotators who give it}; one of them may be wrong."""
    right, other = (ANSWERS.index(a) for a in (question.answer, rng.choice(question.others)))
    if right == other or rng.random() >= ERROR_RATE:
        return {right: ANNOTATORS}
    return {right: ANNOTATORS - 1, other: 1}
