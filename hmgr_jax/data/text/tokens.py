"""Penn Treebank tokens of captions, without NLTK and downloads.

Tokens equal those of ``nltk.word_tokenize(caption.lower())``, which SCAN's vocabularies were made
with, but a rule on periods (`_ends_sentence`) replaces its trained sentence splitter, and scripts
without spaces between words are split by character.
"""

from __future__ import annotations

import re
import unicodedata

from hmgr_jax.errors import UserError

# Quotes and marks end a word, longest first; everything between is a word.
_LEX = re.compile(
    r"""
    (?P<quote>"|'')
  | (?P<mark>[«“‘„»”’‒–—―;@\#$%&?!*\[\](){}<>]|`+|--|\.\.+|[:,](?!\d))
  | (?P<word>(?:[^\W_]+|(?!''|--|\.\.|[:,](?!\d))[^\s"`«“‘„»”’‒–—―;@\#$%&?!*\[\](){}<>])+)
    """,
    re.VERBOSE,
)
_MARKS = "".join(
    chr(code)
    for code in (*range(0x0E00, 0x10A0), *range(0x1780, 0x1800))
    if unicodedata.category(chr(code)).startswith("M")
)
# Thai to Tibetan, Burmese, Khmer, Japanese and Chinese, with their punctuation; a vowel sign or a
# tone mark stays with its letter.
_UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3001-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U0003ffff]"
    f"[{_MARKS}]*"
)
_PLAIN = re.compile(r"[a-z ]*(?: \.)?")
_OPENS_BEFORE = frozenset(" ([{<`«“‘„")
_CLOSERS_TO_END = re.compile(r"""(?:[\])}>'»”’ ]|(?<![\s(\[{<])")*$""")
_FINAL_PERIOD = re.compile(r"(.*[^.])\.('*)$")
_OPENING = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|[mtsdn])\b)(?=\w)")
_POSSESSIVE = re.compile(r"(.*[^'])('[smd]?)$")
_CLITIC = re.compile(r"(.*[^'])('ll|'re|'ve|n't)$")
_FUSED = re.compile(
    r"\b(?:(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n)|(wan)(na))\b"
)
_FUSED_WORDS = frozenset({"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"})
# In lower-cased text only the word itself tells that its period does not end a sentence.
_ABBREVIATION = re.compile(
    r"(?:mr|mrs|ms|dr|st|ave|jr|sr|vs|co|corp|inc|ltd|mt|ft|sgt|lt|capt|gen|gov|rev|prof"
    r"|\w|\d[\d.,]*|\w(?:\.\w)+)$"
)


def tokenize(caption: str) -> list[str]:
    """Lower-case ``caption`` and split it into Treebank tokens.

    Clitics are tokens (``do n't``, ``dog 's``), double quotes become `` and '', brackets and
    punctuation stand alone, hyphens stay inside words, and a period is a token at the end of a
    sentence but not after an abbreviation or an initial. Of Chinese, Japanese, Thai, Lao, Khmer,
    Burmese and Tibetan every character is a token.

    Raises ``UserError`` for anything but text, such as bytes.
    """
    if not isinstance(caption, str):
        raise UserError(
            f"a caption must be text, but this one is {type(caption).__name__}: decode it as UTF-8."
        )
    caption = caption.lower()
    if not caption.isascii():
        caption = _UNSPACED.sub(r" \g<0> ", caption)
    words = caption.split()
    text = " ".join(words)
    if _PLAIN.fullmatch(text) and _FUSED_WORDS.isdisjoint(words):
        return words  # fast path of most captions
    tokens: list[str] = []
    for match in _LEX.finditer(text):
        token = match.group()
        if match.lastgroup == "mark" or (token.isalpha() and token not in _FUSED_WORDS):
            tokens.append(token)
        elif match.lastgroup == "quote":
            tokens.append("``" if _opens(text, match.start(), token) else "''")
        else:
            tokens += _split_word(token, text, match.end())
    return tokens


def _opens(text: str, start: int, quote: str) -> bool:
    """Whether the quote at ``start`` opens: at the beginning, after a space or a bracket."""
    return text[start - 1] in _OPENS_BEFORE if start else quote == '"'


def _ends_sentence(word: str, text: str, end: int) -> bool:
    """Whether the final period of a word (given without it) that ends at ``end`` is a full stop."""
    if _CLOSERS_TO_END.match(text, end):
        return True
    return text[end] in " )\";}]*:@'({[‘’“”«»!?" and not _ABBREVIATION.match(word)


def _split_word(word: str, text: str, end: int) -> list[str]:
    """Split a word into its tokens: full stop, quotes, clitics and fused words."""
    after: list[str] = []
    if (match := _FINAL_PERIOD.match(word)) and _ends_sentence(match[1], text, end):
        word, after = match[1], [".", *([match[2]] if match[2] else [])]
    tokens: list[str] = []
    for part in _OPENING.sub("' ", word).split():
        tail: list[str] = []
        for ending in (_POSSESSIVE, _CLITIC):
            if match := ending.match(part):
                part, tail = match[1], [match[2], *tail]
        tokens += _FUSED.sub(_apart, part).split() + tail
    return tokens + after


def _apart(match: re.Match[str]) -> str:
    """The two halves of a fused word such as "cannot", between spaces."""
    return " " + " ".join(half for half in match.groups() if half) + " "
