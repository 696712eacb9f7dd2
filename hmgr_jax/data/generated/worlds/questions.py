"""Questions about generated scenes: some are answered by the picture, others only by a bank.

What a picture shows: colours, shapes, how many there are and who stands where. Who drew it, and
what an object is made of, stands in captions of its siblings (`hmgr_jax.data.generated.worlds.facts`).
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
    demand_bank,
    make_bank,
    maker,
    material,
    thing_name,
)
from hmgr_jax.data.generated.worlds.regions import make_regions
from hmgr_jax.data.generated.worlds.scene import COLOURS, MOST, SHAPES, SIBLINGS, Scene
from hmgr_jax.data.generated.worlds.statements import Statement, truth
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.pieces import Pieces
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
from hmgr_jax.errors import UserError

VERSION = 1
"""Raise it with any change that changes a question, an answer or a caption of a bank."""
ROLES = ("train", "dev", "test")
SEEN, MAKER, MATERIAL = "seen", "maker", "material"
"""Kinds of questions: what the picture shows, and the facts that stand in a bank."""
YES_NO = ("yes", "no")
ANSWERS = (*YES_NO, *map(str, range(MOST + 1)), *COLOURS, *SHAPES, *MATERIALS, *MAKERS)
ERRING = 0.3
"""Share of the questions to which one of the ten annotators gives another answer."""
SIDES = ("left of", "above")


class Question(NamedTuple):
    """A question about a scene."""

    text: str
    answer: str
    others: tuple[str, ...]
    """What an answer may look like."""
    kind: str


def ask(scene: Scene, facts: str) -> list[Question]:
    """Six questions about a scene: three about what it shows, three about facts of a bank."""
    rng = scene.generator("questions")
    looks = [*_of_one_look(scene, rng)]
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


def _of_one_look(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """The colour of an only shape of a kind, the shape of an only object of a colour."""
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
    """Whether one object is left of, or above, another: clearly so or clearly not."""
    while True:
        relation = SIDES[rng.integers(len(SIDES))]
        a, b = rng.permutation(len(scene.things))[:2].tolist()
        verdict = truth(Statement(relation, (a, b)), scene)
        if verdict:
            names = thing_name(scene, a), thing_name(scene, b)
            text = f"is the {names[0]} {relation} the {names[1]}"
            return Question(text, YES_NO[int(verdict < 0)], YES_NO, SEEN)


def question_grammar() -> list[list[str]]:
    """Every word that a question can hold, as lists of tokens."""
    patterns = ("what is the made of", "who drew this", "what colour is the", "what shape is")
    more = ("how many are", *(f"is the {side} the" for side in SIDES))
    return [tokenize(pattern) for pattern in (*patterns, *more)]


def _vocabulary() -> Vocabulary:
    return Vocabulary.build([*question_grammar(), *bank_grammar()], threshold=1)


class Worlds(NamedTuple):
    """Which worlds are asked about; sizes count scenes, in multiples of 4."""

    seed: int = 0
    train: int = 2000
    dev: int = 200
    test: int = 400
    facts: str = "main"
    """The bank whose facts are right."""

    def scenes(self, role: str) -> list[Scene]:
        """The scenes of a split, those of `hmgr_jax.data.generated.worlds`."""
        count = getattr(self, role) // SIBLINGS
        return [s for n in range(count) for s in make_family(self.seed, role, n).scenes]

    def first(self, role: str) -> int:
        """The number of the first scene of a split among those of all."""
        return sum(getattr(self, before) for before in ROLES[: ROLES.index(role)])

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            UserError: a size, the seed, or the name of a bank.
        """
        if self.seed < 0:
            raise UserError(f"data.questions.seed is {self.seed}: give 0 or a larger number.")
        for role in ROLES:
            size = getattr(self, role)
            if size < SIBLINGS or size % SIBLINGS:
                raise UserError(
                    f"data.questions.{role} is {size}, but scenes come in families of {SIBLINGS}: "
                    f"give a positive multiple of {SIBLINGS}."
                )
        demand_bank(self.facts)


def open_bank(worlds: Worlds, name: str) -> Bank:
    """The captions of a bank about all scenes of all splits.

    Raises:
        UserError: there is no such bank.
    """
    worlds.check()
    demand_bank(name)
    return make_bank(name, [scene for role in ROLES for scene in worlds.scenes(role)])


def open_questions(
    worlds: Worlds, roles: Sequence[str] = ROLES, known: Vocabulary | None = None
) -> DataSet:
    """Six questions about every scene, with the answers of ten annotators.

    Pictures give regions as those of `hmgr_jax.data.generated.worlds` do. ``known`` is the
    vocabulary of a
    checkpoint. Raises ``UserError`` for a size, a seed, a bank, or another vocabulary.
    """
    worlds.check()
    own = _vocabulary()
    vocabulary = known or own
    if not isinstance(vocabulary, Pieces) and vocabulary != own:
        raise UserError(
            "the model was trained on questions in other words than these: evaluate it with the "
            "version of hmgr_jax that trained it, or train anew."
        )
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
    """{answer: how many of the ten annotators give it}; one of them may err."""
    right, other = (ANSWERS.index(a) for a in (question.answer, rng.choice(question.others)))
    if right == other or rng.random() >= ERRING:
        return {right: ANNOTATORS}
    return {right: ANNOTATORS - 1, other: 1}
