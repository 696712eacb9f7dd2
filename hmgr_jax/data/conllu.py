"""CoNLL-U files: parsed sentences, one a caption (universaldependencies.org/format.html)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hmgr_jax.errors import UserError

COLUMNS = 10


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


def read_conllu(path: Path) -> Iterator[Sentence]:
    """The sentences of a file.

    Empty nodes (8.1) are passed over. Words of a range (1-2) that spell it together are stretches
    of text of their own, others share that of the range.

    Raises:
        UserError: with file and line for whatever is not CoNLL-U.
    """
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
                    yield _sentence(path, start, block)
                    block = []
            if block:
                yield _sentence(path, start, block)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save the file as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def _sentence(path: Path, start: int, block: list[str]) -> Sentence:
    text: str | None = None
    words: list[tuple[int, str, int]] = []
    surfaces: list[str] = []
    ranges: list[tuple[int, int, str]] = []
    forms: list[str] = []
    for number, line in enumerate(block, start=start):
        if line.startswith("#"):
            name, _, value = line[1:].partition("=")
            text = value.strip() if name.strip() == "text" else text
            continue
        columns = line.split("\t")
        if len(columns) != COLUMNS:
            raise UserError(
                f"{path}:{number} has {len(columns)} columns where CoNLL-U has {COLUMNS}, with "
                "tabs between them: write the file anew."
            )
        ident, form, head, relation = columns[0], columns[1], columns[6], columns[7]
        if "." in ident:
            continue
        if "-" in ident:
            first, _, last = ident.partition("-")
            ranges.append((_count(path, number, first), _count(path, number, last), form))
            continue
        if ident != str(len(forms) + 1):
            raise UserError(
                f"{path}:{number} has the number {ident!r} where {len(forms) + 1} was expected: "
                "words are numbered from 1 in every sentence, so leave a blank line before each."
            )
        forms.append(form)
        words.append((_count(path, number, head), relation, number))
    places = _places(forms, ranges, surfaces)
    for head_number, _, number in words:
        if head_number > len(words):
            raise UserError(
                f"{path}:{number} has the head {head_number}, but the sentence has {len(words)} "
                "words: correct it."
            )
    found = (
        Word(place, head - 1, relation)
        for place, (head, relation, _) in zip(places, words, strict=True)
    )
    return Sentence(start, text, tuple(surfaces), tuple(found))


def _places(forms: list[str], ranges: list[tuple[int, int, str]], surfaces: list[str]) -> list[int]:
    """The stretch of text of each word; fills ``surfaces``."""
    shared: dict[int, tuple[int, str]] = {}
    for first, last, form in ranges:
        inner = range(first - 1, min(last, len(forms)))
        if "".join(forms[i] for i in inner) != form:
            shared |= dict.fromkeys(inner, (first, form))
    places: list[int] = []
    last_range: tuple[int, str] | None = None
    for i, form in enumerate(forms):
        if i not in shared:
            surfaces.append(form)
        elif shared[i] != last_range:
            surfaces.append(shared[i][1])
        last_range = shared.get(i)
        places.append(len(surfaces) - 1)
    return places


def _count(path: Path, number: int, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UserError(
            f"{path}:{number} has {text!r} where the number of a word or of its head was expected: "
            "parse the sentence."
        )
    return int(text)
