"""CoNLL-U files: parsed sentences, one a caption (universaldependencies.org/format.html)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hmgr_jax.errors import UserError

COLUMNS = 10
DIGITS = 9
"""Of the number of a word, at most."""


class Word(NamedTuple):
    """A word of a parsed sentence."""

    surface: int
    """Number of the stretch of text it belongs to; the words of "don't" may share one."""
    head: int
    """Number of its head, from 0; -1 for the root."""
    relation: str


class Sentence(NamedTuple):
    """A parsed sentence."""

    line: int
    """Where it begins, from 1."""
    text: str | None
    """As its comment ``# text`` says."""
    surfaces: tuple[str, ...]
    """The stretches of text, in order."""
    words: tuple[Word, ...]


class _Row(NamedTuple):
    """The line of a word."""

    number: int
    form: str
    head: int
    relation: str


class _Range(NamedTuple):
    """The line of several words, ``first`` to ``last`` from 1."""

    number: int
    form: str
    first: int
    last: int


def read_conllu(path: Path) -> Iterator[Sentence]:
    """The sentences of a file.

    Empty nodes (8.1) and blocks of comments alone are passed over. Words of a range (1-2) that
    spell it together are stretches of text of their own, others share that of the range.

    Raises:
        UserError: with file and line for whatever is not CoNLL-U.
    """
    for start, block in _blocks(path):
        if not all(line.startswith("#") for line in block):
            yield _sentence(path, start, block)


def _blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of what blank lines divide."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            block: list[str] = []
            start = 1
            for number, raw in enumerate(file, start=1):
                line = raw.rstrip("\r\n")
                if line.strip():
                    start = start if block else number
                    block.append(line)
                elif block:
                    yield start, block
                    block = []
            if block:
                yield start, block
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save the file as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def _sentence(path: Path, start: int, block: list[str]) -> Sentence:
    text: str | None = None
    rows: list[_Row] = []
    ranges: list[_Range] = []
    for number, line in enumerate(block, start=start):
        if line.startswith("#"):
            name, _, value = line[1:].partition("=")
            text = value.strip() if name.strip() == "text" else text
            continue
        columns = _columns(path, number, line)
        if "-" in columns[0]:
            ranges.append(_range(path, number, columns))
        elif "." not in columns[0]:
            rows.append(_row(path, number, columns, len(rows) + 1))
    _demand_inside(path, rows, ranges)
    surfaces, places = _places([row.form for row in rows], ranges)
    words = (
        Word(place, row.head - 1, row.relation) for place, row in zip(places, rows, strict=True)
    )
    return Sentence(start, text, tuple(surfaces), tuple(words))


def _columns(path: Path, number: int, line: str) -> list[str]:
    columns = line.split("\t")
    if len(columns) != COLUMNS:
        raise UserError(
            f"{path}:{number} has {len(columns)} columns where CoNLL-U has {COLUMNS}, with tabs "
            "between them: write the file anew."
        )
    return columns


def _row(path: Path, number: int, columns: list[str], expected: int) -> _Row:
    """The word that should have the number ``expected`` in its sentence."""
    ident, form, head = columns[0], columns[1], columns[6]
    if ident != str(expected):
        raise UserError(
            f"{path}:{number} has the number {ident!r} where {expected} was expected: words are "
            "numbered from 1 in every sentence, so leave a blank line before each."
        )
    if head == ident:
        raise UserError(
            f"{path}:{number} has the word {ident} as its own head: name another word, or 0 for "
            "the root."
        )
    return _Row(number, form, _count(path, number, head), columns[7])


def _range(path: Path, number: int, columns: list[str]) -> _Range:
    first, _, last = columns[0].partition("-")
    return _Range(number, columns[1], _count(path, number, first), _count(path, number, last))


def _demand_inside(path: Path, rows: list[_Row], ranges: list[_Range]) -> None:
    """Refuse heads and ranges that name no words of the sentence."""
    for row in rows:
        if row.head > len(rows):
            raise UserError(
                f"{path}:{row.number} has the head {row.head}, but the sentence has {len(rows)} "
                "words: correct it."
            )
    for number, _, first, last in ranges:
        if not 1 <= first <= last <= len(rows):
            raise UserError(
                f"{path}:{number} has the range {first}-{last}, but the words of the sentence are "
                f"numbered from 1 to {len(rows)}: correct it."
            )


def _places(forms: list[str], ranges: list[_Range]) -> tuple[list[str], list[int]]:
    """The stretches of text, and which of them each word belongs to."""
    shared: dict[int, tuple[int, str]] = {}
    for _, form, first, last in ranges:
        inner = range(first - 1, last)
        if "".join(forms[i] for i in inner) != form:
            shared |= dict.fromkeys(inner, (first, form))
    surfaces: list[str] = []
    places: list[int] = []
    last_range: tuple[int, str] | None = None
    for i, form in enumerate(forms):
        if i not in shared:
            surfaces.append(form)
        elif shared[i] != last_range:
            surfaces.append(shared[i][1])
        last_range = shared.get(i)
        places.append(len(surfaces) - 1)
    return surfaces, places


def _count(path: Path, number: int, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UserError(
            f"{path}:{number} has {text!r} where the number of a word or of its head was expected: "
            "parse the sentence."
        )
    if len(text) > DIGITS:
        raise UserError(
            f"{path}:{number} has a number of {len(text)} digits where that of a word or of its "
            f"head was expected, of at most {DIGITS}: correct it."
        )
    return int(text)
