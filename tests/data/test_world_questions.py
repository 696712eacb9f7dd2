"""Questions over worlds: what is seen is true of the scene, what is not stands in a bank."""

import numpy as np
import pytest

from hmgr_jax.data.generated.worlds import make_family, open_worlds
from hmgr_jax.data.generated.worlds.facts import MAKERS, MATERIALS, maker, material, thing_name
from hmgr_jax.data.generated.worlds.questions import ANSWERS, Worlds, ask, open_bank, open_questions
from hmgr_jax.data.generated.worlds.scene import COLOURS, SHAPES, SIBLINGS
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.errors import UserError

SMALL = Worlds(train=24, dev=8, test=8)
SCENES = [scene for role in ("train", "dev", "test") for scene in SMALL.scenes(role)]


@pytest.fixture(scope="module")
def data():
    return open_questions(SMALL)


def seen_answer(scene, text):
    """What a question about a picture must be answered, found another way."""
    words = text.split()
    names = {thing_name(scene, k): thing for k, thing in enumerate(scene.things)}
    if text.startswith("how many"):
        return str(sum(words[-1] in name.split() for name in names))
    if text.startswith("what"):
        (name,) = [name for name in names if words[-1] in name.split()]
        return name.split()[0] if "colour" in words else name.split()[1]
    relation = "left of" if "left" in words else "above"
    first, second = text.removeprefix("is the ").split(f" {relation} the ")
    axis = "x" if relation == "left of" else "y"
    clearly = getattr(names[second], axis) - getattr(names[first], axis) > 0.08
    return "yes" if clearly else "no"


def test_what_a_picture_shows_is_answered_by_it():
    kinds = set()
    for scene in SCENES:
        for question in ask(scene, "main"):
            if question.kind == "seen":
                kinds.add(question.text.split()[1])
                assert question.answer == seen_answer(scene, question.text), question
    assert kinds >= {"many", "colour", "shape", "the"}


def test_a_fact_stands_in_captions_of_siblings_and_in_no_picture():
    bank = open_bank(SMALL, "main")
    answered = 0
    for number, scene in enumerate(SCENES):
        family = number // SIBLINGS
        others = [
            caption
            for caption, owner in zip(bank.captions, bank.owners, strict=True)
            if owner // SIBLINGS == family and owner != number
        ]
        for question in ask(scene, "main"):
            if question.kind == "seen":
                continue
            if question.text == "who drew this":
                assert {caption.split()[0] for caption in others} == {question.answer}
                continue
            name = question.text.removeprefix("what is the ").removesuffix(" made of")
            telling = [caption for caption in others if name in caption]
            assert all(f"{question.answer} {name}" in caption for caption in telling)
            answered += bool(telling)
    assert answered > 0.9 * 2 * len(SCENES)


def test_another_bank_tells_the_same_things_otherwise():
    main, other = (open_bank(SMALL, name) for name in ("main", "other"))
    facts = {*MATERIALS, *MAKERS}

    def without_facts(caption):
        return [word for word in tokenize(caption) if word not in facts]

    for a, b in zip(main.captions, other.captions, strict=True):
        assert without_facts(a) == without_facts(b)
    pairs = [(s, k) for s in SCENES[::SIBLINGS] for k in range(len(s.things))]
    same = np.mean([material("main", s, k) == material("other", s, k) for s, k in pairs])
    assert same < 0.35  # by chance one of eight
    assert main.fingerprint != other.fingerprint


def test_facts_are_those_of_the_family():
    family = make_family(0, "train", 3).scenes
    assert len({maker("main", scene) for scene in family}) == 1
    for k in range(len(family[0].things)):
        assert len({material("main", scene, k) for scene in family}) == 1


def test_items_carry_the_numbers_of_pictures_and_questions(data):
    first = 0
    for role, size in (("train", 24), ("dev", 8), ("test", 8)):
        split = data.splits[role]
        found = split.sources["question"].gather(np.arange(len(split)))
        np.testing.assert_array_equal(found["picture"], first + np.repeat(np.arange(size), 6))
        np.testing.assert_array_equal(found["question"], 6 * first + np.arange(6 * size))
        first += size
    regions = open_worlds(train=24, dev=8, test=8).splits["test"].sources["image"].gather([0])
    np.testing.assert_array_equal(found["regions"][:1], regions["regions"])


def test_annotators_agree_but_for_one_now_and_then(data):
    split = data.splits["train"]
    counts = split.labels["question"][:]
    assert (counts.sum(axis=1) == 10).all()
    assert {9, 10} == set(counts.max(axis=1).tolist())
    right = [ANSWERS[k] for k in split.groups["question"]]
    asked = [q.answer for s in SMALL.scenes("train") for q in ask(s, "main")]
    assert right == asked


def test_every_word_is_known(data):
    texts = [
        *data.splits["train"].sources["question"].captions,
        *open_bank(SMALL, "other").captions,
    ]
    assert all(word in data.vocabulary for text in texts for word in tokenize(text))
    assert {*COLOURS, *SHAPES, *MATERIALS} <= set(data.vocabulary.words)


def test_a_scene_does_not_depend_on_the_sizes(data):
    more = open_questions(SMALL._replace(train=32)).splits["train"].sources["question"].captions
    assert more[: 6 * 24] == data.splits["train"].sources["question"].captions


def test_told_worlds_have_the_captions_of_a_bank():
    split = open_worlds(train=24, dev=8, test=8, bank="main").splits["train"]
    bank = open_bank(SMALL, "main")
    assert split.sources["text"].captions == tuple(bank.captions[:48])
    np.testing.assert_array_equal(split.groups["text"], bank.owners[:48])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seed": -1}, "data.questions.seed is -1"),
        ({"dev": 6}, "data.questions.dev is 6, but families have 4 members"),
        ({"facts": "mian"}, "no bank 'mian': choose from main, other, random"),
    ],
)
def test_rejects_bad_sizes_and_facts(changed, sentence):
    with pytest.raises(UserError, match=sentence):
        open_questions(SMALL._replace(**changed))
