"""Captions of clips are true of their clip only: read back from English, judged by geometry."""

import re
from collections import Counter

import numpy as np
import pytest

from hmgr_jax.data.generated.worlds.clip import draw_clips
from hmgr_jax.data.generated.worlds.clip_captions import describe_clip
from hmgr_jax.data.generated.worlds.lexicon import WORDS
from hmgr_jax.data.generated.worlds.scene import COLOURS, SHAPES

FAMILIES = 150
TIMES = np.linspace(0, 1, 41)


@pytest.fixture(scope="module")
def families():
    return [draw_clips(0, "test", number) for number in range(FAMILIES)]


# A reader of its own: object names become #0, #1, ..., and the rest is matched word by word.
MEANING = {word: meaning for meaning, words in WORDS.items() for word in words}
COLOUR, SHAPE = (
    "|".join(word for word, meaning in MEANING.items() if meaning in meanings)
    for meanings in (COLOURS, SHAPES)
)
NAME = re.compile(rf"\bthe ({COLOUR}) ({SHAPE})\b")
MOTIONS = {
    r"moves? to the left|goes left|slides to the left|travels leftwards": ("left",),
    r"moves to the right|goes right|slides to the right|travels rightwards": ("right",),
    r"moves up|goes up|rises|travels upwards": ("up",),
    r"moves down|goes down|sinks|travels downwards": ("down",),
    r"(?:moves towards|comes closer to|approaches) #(\d)": ("towards",),
    r"(?:moves away from|gets farther from|leaves) #(\d)": ("away",),
    r"grows|gets bigger|becomes larger": ("grows",),
    r"shrinks|gets smaller|becomes smaller": ("shrinks",),
    r"(?:circles|goes around) clockwise": ("clockwise",),
    r"(?:circles|goes around) counterclockwise": ("counterclockwise",),
}
MOTION = "|".join(f"(?:{p})".replace("(\\d)", "\\d") for p in MOTIONS)
CLAUSE = re.compile(
    rf"#(\d) (?P<late>waits and then |stands still at first and then )?"
    rf"(?P<change>speeds up as it |slows down as it )?(?P<motion>{MOTION})"
    r"(?P<early> and then stops| but stops halfway)?"
    r"(?P<faster> faster and faster)?(?P<slower> slower and slower)?"
    r"(?P<quick> quickly| fast)?(?P<slow> slowly)?"
)
ORDERS = {
    r"#(\d) is the first to move and #(\d) the second": (0, 1),
    r"#(\d) starts to move only when #(\d) has stopped": (1, 0),
    r"#(\d) moves before #(\d) does": (0, 1),
}
JOINED = {
    r"@ while @|@ and @|as @, @|here @ and @": (),
    r"first @, then @|@ before @|once @, @": ("before", 0, 1),
    r"@ after @": ("before", 1, 0),
    r"@ and @, then nothing moves|at the start @ and @": ("both", "early"),
    r"nothing moves at first, then @ and @|near the end @ and @": ("both", "late"),
}
STANDING = re.compile(r"(?: while #(\d) stands still| but #(\d) does not move)$")


def _read(text, clip):
    """What an English reader takes the caption to say, as tuples."""
    sentence = NAME.sub(lambda match: _object(match, clip), text)
    said = []
    if match := STANDING.search(sentence):
        said.append(("still", int(match[1] or match[2])))
        sentence = sentence[: match.start()]
    for pattern, (first, second) in ORDERS.items():
        if match := re.fullmatch(pattern, sentence):
            objects = [int(match[1]), int(match[2])]
            return [*said, ("before", objects[first], objects[second])]
    found = list(CLAUSE.finditer(sentence))
    assert len(found) == 2, sentence
    for match in found:
        said += _of_clause(match)
    objects = [int(match[1]) for match in found]
    rest = CLAUSE.sub("@", sentence)
    meanings = [m for pattern, m in JOINED.items() if re.fullmatch(pattern, rest)]
    assert len(meanings) == 1, rest
    match meanings[0]:
        case ("before", one, two):
            said.append(("before", objects[one], objects[two]))
        case ("both", when):
            said += [(when, k) for k in objects]
    return said


def _object(match, clip):
    """#k for the name of object k."""
    colour, shape = (MEANING[word] for word in match.groups())
    label = (SHAPES.index(shape), COLOURS.index(colour))
    (index,) = [k for k, actor in enumerate(clip.actors) if (actor.shape, actor.colour) == label]
    return f"#{index}"


def _of_clause(match):
    subject, said = int(match[1]), []
    for pattern, (name,) in MOTIONS.items():
        if found := re.fullmatch(pattern, match["motion"]):
            said.append((name, subject, *map(int, found.groups())))
    assert len(said) == 1, match[0]
    said += [
        (name, subject)
        for name in ("late", "early", "faster", "slower", "quick", "slow")
        if match[name]
    ]
    if match["change"]:
        said.append(("faster" if "speeds" in match["change"] else "slower", subject))
    return said


def _is_true(said, clip):
    """Plain geometry of the states over time."""
    name, subject, *others = said
    states = clip.states(TIMES)
    mine = states[subject]
    speed = np.linalg.norm(np.diff(mine, axis=0), axis=1)
    moving = np.flatnonzero(speed > 1e-6)
    half = len(speed) // 2
    step, growth = mine[-1, :2] - mine[0, :2], mine[-1, 2] / mine[0, 2]
    if name in ("left", "right", "up", "down"):
        axis, sign = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}[name]
        return step[axis] * sign > 0.13 and abs(step[1 - axis]) < 0.2 * abs(step[axis])
    if name in ("towards", "away"):
        gap = np.linalg.norm(mine[:, :2] - states[others[0]][:, :2], axis=1)
        return (gap[0] - gap[-1]) * (1 if name == "towards" else -1) > 0.13
    if name in ("grows", "shrinks"):
        return growth > 1.4 if name == "grows" else growth < 0.72
    if name in ("clockwise", "counterclockwise"):
        return _turns(mine) > 6 if name == "clockwise" else _turns(mine) < -6
    if name == "still":
        return len(moving) == 0
    if name == "before":
        then = np.flatnonzero(np.linalg.norm(np.diff(states[others[0]], axis=0), axis=1) > 1e-6)
        return moving.max() < then.min()
    if name in ("early", "late"):
        return moving.max() < half if name == "early" else moving.min() >= half
    if name in ("faster", "slower"):
        ratio = speed[half:].sum() / speed[:half].sum()
        return ratio > 2 if name == "faster" else ratio < 0.5
    pace = np.linalg.norm(step) * len(speed) / len(moving)
    return pace > 0.32 if name == "quick" else pace < 0.24


def _turns(mine):
    """The angle run through, clockwise on the screen; 0 for what does not turn."""
    way = np.diff(mine[:, :2], axis=0)
    way = way[np.linalg.norm(way, axis=1) > 1e-6]
    if len(way) < 3:
        return 0.0
    cross = way[:-1, 0] * way[1:, 1] - way[:-1, 1] * way[1:, 0]
    return np.arctan2(cross, (way[:-1] * way[1:]).sum(1)).sum() * len(way) / (len(way) - 1)


def _told(families):
    for clips in families:
        for clip in clips:
            for caption in describe_clip(clip):
                yield clip, [other for other in clips if other is not clip], caption


@pytest.mark.slow
def test_every_caption_is_true_of_its_clip_and_false_of_each_sibling(families):
    seen = Counter()
    for clip, siblings, caption in _told(families):
        said = _read(caption, clip)
        assert all(_is_true(one, clip) for one in said), (caption, said)
        assert not any(all(_is_true(one, s) for one in said) for s in siblings), (caption, said)
        seen.update(one[0] for one in said)
    wanted = "left right up down towards away grows shrinks clockwise counterclockwise still before"
    for name in [*wanted.split(), "early", "late", "faster", "slower", "quick", "slow"]:
        assert seen[name] > 30, name


def test_captions_of_a_clip_differ(families):
    for clips in families:
        for clip in clips:
            assert len(set(describe_clip(clip))) == 5
