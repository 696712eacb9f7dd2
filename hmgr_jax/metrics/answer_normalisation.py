"""VQA's answer normalisation (Antol et al., ICCV 2015).

Punctuation and articles are removed, number words become digits, contractions get apostrophes.
"""

from __future__ import annotations

import re

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
"""A period without a digit after it."""
_GROUPED = re.compile(r"\d,\d")
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
NUMBERS["none"] = "0"
ARTICLES = ("a", "an", "the")
_FORMS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll let's ma'am
mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't shan't she'd've
should've shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's 'twas there'd
there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't
what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've
you'll you're you've
"""


def _bare(form: str) -> list[str]:
    """A contraction without its apostrophes, and without either one of two."""
    without = [form.replace("'", "")]
    places = [place for place, letter in enumerate(form) if letter == "'"]
    if len(places) > 1:
        without += [form[:place] + form[place + 1 :] for place in places]
    return without


CONTRACTIONS = {bare: form for form in _FORMS.split() for bare in _bare(form)}
"""{spelling without apostrophes: with apostrophes}, except other words (its, were)."""


def normalised(answer: str) -> str:
    """The answer in normal form; normalising twice changes nothing."""
    text = _strip_punctuation(answer.replace("\n", " ").replace("\t", " ").strip().lower())
    words = (NUMBERS.get(word, word) for word in text.split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _strip_punctuation(text: str) -> str:
    """Remove marks beside a space, or all if a number has commas; replace the others by a space."""
    grouped = _GROUPED.search(text) is not None
    found = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if beside_space or grouped else " ")
    return _PERIOD.sub("", found)
