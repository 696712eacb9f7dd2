"""Captions are true of their scene only: read back from their English, judged by plain geometry."""

import math
import re
from collections import Counter

import numpy as np
import pytest

from hmgr_jax.data.generated.worlds import make_family
from hmgr_jax.data.generated.worlds.lexicon import WORDS
from hmgr_jax.data.generated.worlds.scene import COLOURS, SHAPES, SIZES
from hmgr_jax.data.generated.worlds.statements import (
    RELATIONS,
    Statement,
    every_statement,
    holds,
    truth,
    truth_table,
)

FAMILIES = 200


@pytest.fixture(scope="module")
def families():
    return [make_family(0, "test", number) for number in range(FAMILIES)]


def _told(families):
    """(scene, its siblings, caption) for every caption."""
    for family in families:
        for scene, captions in zip(family.scenes, family.captions, strict=True):
            siblings = [other for other in family.scenes if other is not scene]
            for caption in captions:
                yield scene, siblings, caption


# A reader of its own: object names become #0, #1, ..., and the rest is matched word by word.
MEANING = {word: meaning for meaning, words in WORDS.items() for word in words}
SIZE, COLOUR, SHAPE = (
    "|".join(word for word, meaning in MEANING.items() if meaning in meanings)
    for meanings in (SIZES, COLOURS, SHAPES)
)
NAME = re.compile(rf"\b(?:the|an?) (?:({SIZE}) )?({COLOUR}) ({SHAPE})\b")
PHRASES = {
    r"(?:on|at|near) the left (?:side of|edge of|of) the picture": lambda s: ("at left", s),
    r"(?:on|at|near) the right (?:side of|edge of|of) the picture": lambda s: ("at right", s),
    r"(?:at the top of|near the upper edge of|high up in) the picture": lambda s: ("at top", s),
    r"(?:at the bottom of|near the lower edge of|low down in) the picture": lambda s: (
        ("at bottom", s)
    ),
    r"(?:closer|nearer) to #(\d) than to #(\d)": lambda s, b, c: ("closer", s, b, c),
    r"farther from #(\d) than from #(\d)": lambda s, b, c: ("closer", s, c, b),
    r"(?:in )?between #(\d) and #(\d)": lambda s, b, c: ("between", s, b, c),
    r"(?:to the |on the )?left of #(\d)": lambda s, o: ("left", s, o),
    r"(?:to the |on the )?right of #(\d)": lambda s, o: ("left", o, s),
    r"(?:(?:somewhere )?above|over|higher up than) #(\d)": lambda s, o: ("above", s, o),
    r"(?:(?:somewhere )?below|underneath|lower down than) #(\d)": lambda s, o: ("above", o, s),
    r"(?:in one row with|level with|at the height of) #(\d)": lambda s, o: ("row", s, o),
    r"(?:in one column with|vertically in line with) #(\d)": lambda s, o: ("column", s, o),
    r"(?:next to|right beside|beside|close to) #(\d)": lambda s, o: ("near", s, o),
    r"(?:far away from|far from|a long way from|nowhere near) #(\d)": lambda s, o: ("far", s, o),
    r"(?:nearest|closest)(?: of all)? to #(\d)": lambda s, o: ("nearest", s, o),
}
WHOLE = {
    r"#(\d) and #(\d) are (?:next to each other|close together)": lambda a, b: ("near", a, b),
    r"#(\d) has #(\d) right beside it": lambda a, b: ("near", a, b),
    r"#(\d) and #(\d) are far apart": lambda a, b: ("far", a, b),
    r"there is a wide gap between #(\d) and #(\d)": lambda a, b: ("far", a, b),
    r"the shape closest to #(\d) is #(\d)": lambda a, b: ("nearest", b, a),
    r"#(\d) is the nearest neighbour of #(\d)": lambda a, b: ("nearest", a, b),
    r"no shape is closer to #(\d) than #(\d)": lambda a, b: ("nearest", b, a),
    r"#(\d) has #(\d) as its nearest neighbour": lambda a, b: ("nearest", b, a),
    r"of #(\d) and #(\d), #(\d) is nearer to #(\d)": lambda a, b, c, d: (
        ("closer", d, a, b) if a == c else ("impossible",)
    ),
    r"#(\d) and #(\d) have #(\d) between them": lambda a, b, c: ("between", c, a, b),
    r"between #(\d) and #(\d) there is #(\d)": lambda a, b, c: ("between", c, a, b),
    r"on the left side of #(\d) there is #(\d)": lambda a, b: ("left", b, a),
    r"on the right side of #(\d) there is #(\d)": lambda a, b: ("left", a, b),
    r"#(\d) has #(\d) on its right": lambda a, b: ("left", a, b),
    r"#(\d) has #(\d) on its left": lambda a, b: ("left", b, a),
    r"above #(\d) there is #(\d)": lambda a, b: ("above", b, a),
    r"below #(\d) there is #(\d)": lambda a, b: ("above", a, b),
    r"#(\d) has #(\d) below it": lambda a, b: ("above", a, b),
    r"#(\d) has #(\d) above it": lambda a, b: ("above", b, a),
    r"#(\d) and #(\d) are in the same row": lambda a, b: ("row", a, b),
    r"#(\d) and #(\d) are in the same column": lambda a, b: ("column", a, b),
}
OPENING = re.compile(
    r"(?:there is |you can see |this picture shows )?#(\d)"
    r"(?:,? which is| is placed| can be found| is both| is)? "
)
LINK = re.compile(r"(?:,? is|,? and(?: also)?) ")


def _read(text, scene):
    """What an English reader takes the caption to say."""
    sentence = NAME.sub(lambda match: _object(match, scene), text)
    for pattern, meaning in WHOLE.items():
        if match := re.fullmatch(pattern, sentence):
            return [meaning(*map(int, match.groups()))]
    opening = OPENING.match(sentence)
    assert opening, sentence
    subject, rest, said = int(opening[1]), sentence[opening.end() :], []
    while rest:
        found = [(m, re.match(p, rest)) for p, m in PHRASES.items() if re.match(p, rest)]
        assert len(found) == 1, (sentence, rest)
        meaning, match = found[0]
        said.append(meaning(subject, *map(int, match.groups())))
        rest = rest[match.end() :]
        if rest:
            assert LINK.match(rest), (sentence, rest)
            rest = rest[LINK.match(rest).end() :]
    return said


def _object(match, scene):
    """#k for the name of object k."""
    size, colour, shape = (MEANING.get(word) for word in match.groups())
    label = SHAPES.index(shape) * len(COLOURS) + COLOURS.index(colour)
    (index,) = [k for k, thing in enumerate(scene.things) if thing.label == label]
    assert size is None or SIZES[scene.things[index].size] == size
    return f"#{index}"


def _is_true(said, scene):
    """Plain geometry, with one threshold where the generator leaves a gap."""
    name, *objects = said
    p = [(scene.things[k].x, scene.things[k].y) for k in objects]
    if name.startswith("at "):
        axis = int(name in ("at top", "at bottom"))
        return (p[0][axis] < 0.41) if name in ("at left", "at top") else (p[0][axis] > 0.59)
    if name in ("left", "above"):
        axis = ("left", "above").index(name)
        return p[1][axis] - p[0][axis] > 0.08
    if name in ("row", "column"):
        axis = ("column", "row").index(name)
        return abs(p[1][axis] - p[0][axis]) < 0.085
    if name == "between":
        turns = [math.atan2(y - p[0][1], x - p[0][0]) for x, y in p[1:]]
        turn = abs(turns[0] - turns[1])
        return min(turn, 2 * math.pi - turn) > math.radians(112)
    if name == "nearest":
        every = {k: math.dist(p[1], (t.x, t.y)) for k, t in enumerate(scene.things)}
        del every[objects[1]]
        return min(every, key=every.__getitem__) == objects[0]
    if name == "closer":
        return math.dist(p[0], p[1]) < math.dist(p[0], p[2])
    return math.dist(*p) < 0.32 if name == "near" else math.dist(*p) > 0.46


def test_every_caption_is_true_of_its_scene_and_false_of_each_sibling(families):
    count = 0
    for scene, siblings, caption in _told(families):
        assert all(holds(statement, scene) for statement in caption.statements), caption
        for other in siblings:
            assert min(truth(s, other) for s in caption.statements) == -1, caption
        count += 1
    assert count == FAMILIES * 20


def test_the_english_says_the_same(families):
    for scene, siblings, caption in _told(families):
        said = _read(caption.text, scene)
        assert len(said) == len(caption.statements), caption
        assert all(_is_true(one, scene) for one in said), (caption, said)
        assert not any(all(_is_true(one, s) for one in said) for s in siblings), (caption, said)


def test_both_statements_of_a_caption_are_needed(families):
    doubles = 0
    for _, siblings, caption in _told(families):
        if len(caption.statements) == 2:
            doubles += 1
            for statement in caption.statements:
                assert any(truth(statement, other) != -1 for other in siblings)
    assert doubles > FAMILIES


def test_captions_of_a_scene_differ(families):
    for family in families:
        for captions in family.captions:
            assert len({caption.statements for caption in captions}) == 5


def test_most_captions_are_about_distances_of_pairs(families):
    kinds = [
        {RELATIONS[statement.relation].kind for statement in caption.statements}
        for _, _, caption in _told(families)
    ]
    assert np.mean(["pair" in kind for kind in kinds]) >= 0.6
    assert np.mean(["side" not in kind for kind in kinds]) >= 0.5
    assert np.mean([kind == {"side"} for kind in kinds]) >= 0.1
    seen = Counter(s.relation for _, _, caption in _told(families) for s in caption.statements)
    assert seen.keys() == RELATIONS.keys()


def test_truth_table_agrees_with_single_statements(families):
    for family in families[:3]:
        table = truth_table(family.scenes)
        for column, statement in enumerate(every_statement(len(family.scenes[0].things))):
            single = [truth(statement, scene) for scene in family.scenes]
            assert table[:, column].tolist() == single


@pytest.mark.parametrize(
    ("name", "objects", "contrary", "others"),
    [
        ("left of", (0, 1), "left of", (1, 0)),
        ("above", (0, 1), "above", (1, 0)),
        ("next to", (0, 1), "far from", (0, 1)),
        ("closer to", (0, 1, 2), "closer to", (0, 2, 1)),
        ("nearest to", (0, 1), "far from", (0, 1)),
    ],
)
def test_contraries_do_not_hold_together(families, name, objects, contrary, others):
    scenes = [scene for family in families for scene in family.scenes]
    first = [holds(Statement(name, objects), scene) for scene in scenes]
    second = [holds(Statement(contrary, others), scene) for scene in scenes]
    assert sum(first) > 10
    assert sum(second) > 10
    assert not any(one and two for one, two in zip(first, second, strict=True))
