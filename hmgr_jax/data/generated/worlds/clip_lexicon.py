"""The words of captions of clips; objects are named as in `lexicon`, and the grammar is closed."""

from __future__ import annotations

import re

from hmgr_jax.data.generated.worlds.lexicon import WORDS
from hmgr_jax.data.generated.worlds.scene import SIZES
from hmgr_jax.data.text.tokens import tokenize

MOTIONS = {
    "left": ("moves to the left", "goes left", "slides to the left", "travels leftwards"),
    "right": ("moves to the right", "goes right", "slides to the right", "travels rightwards"),
    "up": ("moves up", "goes up", "rises", "travels upwards"),
    "down": ("moves down", "goes down", "sinks", "travels downwards"),
    "towards": ("moves towards {other}", "comes closer to {other}", "approaches {other}"),
    "away": ("moves away from {other}", "gets farther from {other}", "leaves {other}"),
    "grows": ("grows", "gets bigger", "becomes larger"),
    "shrinks": ("shrinks", "gets smaller", "becomes smaller"),
    "clockwise": ("circles clockwise", "goes around clockwise"),
    "counterclockwise": ("circles counterclockwise", "goes around counterclockwise"),
}

TIMED = {
    "steady": ("{name} {motion}",),
    "early": ("{name} {motion} and then stops", "{name} {motion} but stops halfway"),
    "late": ("{name} waits and then {motion}", "{name} stands still at first and then {motion}"),
    "faster": ("{name} {motion} faster and faster", "{name} speeds up as it {motion}"),
    "slower": ("{name} {motion} slower and slower", "{name} slows down as it {motion}"),
}
"""A clause that says how a movement is spread over the clip."""

PACES = {"quick": ("quickly", "fast"), "slow": ("slowly",)}
PACED = "{name} {motion} {pace}"

TOGETHER = ("{0} while {1}", "{0} and {1}", "as {0} , {1}", "here {0} and {1}")
"""Two movements that overlap in time, or of whose time nothing is said."""
IN_TURN = ("first {0} , then {1}", "{0} before {1}", "{1} after {0}", "once {0} , {1}")
"""The second movement begins when the first has ended."""
BOTH_EARLY = ("{0} and {1} , then nothing moves", "at the start {0} and {1}")
BOTH_LATE = ("nothing moves at first , then {0} and {1}", "near the end {0} and {1}")
ORDER = (
    "{0} is the first to move and {1} the second",
    "{1} starts to move only when {0} has stopped",
    "{0} moves before {1} does",
)
"""Nothing but the order, which may differ between siblings like everything else."""
STANDING = ("{0} while {1} stands still", "{0} but {1} does not move")
"""A third object is mentioned; {0} is all the rest."""


def clip_grammar() -> list[list[str]]:
    """Every word that a caption of a clip can hold, as lists of tokens."""
    patterns = [*TOGETHER, *IN_TURN, *BOTH_EARLY, *BOTH_LATE, *ORDER, *STANDING, PACED, "the"]
    names = [words for meaning, words in WORDS.items() if meaning not in SIZES]
    for group in (*MOTIONS.values(), *TIMED.values(), *PACES.values(), *names):
        patterns.extend(group)
    return [tokenize(re.sub(r"{\w+}", " ", pattern)) for pattern in patterns]
