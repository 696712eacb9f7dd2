"""Parsed sentences of CoNLL-U files (universaldependencies.org/format.html), one a caption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import conllu
from conllu.exceptions import ParseException
from conllu.parser import DEFAULT_FIELDS

from hmgr_jax.errors import UserError

_FIELDS = (*DEFAULT_FIELDS, "surplus")  # a line with further columns has this field
_RAW = {name: lambda line, i: line[i] for name in ("feats", "deps", "misc")}  # not used


class Word(NamedTuple):
    """A word of a parsed sentence."""

    surface: int
    """Index of its surface form; the words of a multiword token ("don't") may share one."""
    head: int
    """Index of its head, from 0; -1 for the root."""
    relation: str


class Sentence(NamedTuple):
    """A parsed sentence."""

    text: str | None
    """Its comment ``# text``."""
    surfaces: tuple[str, ...]
    """Surface forms in order."""
    words: tuple[Word, ...]


def read_conllu(path: Path) -> Iterator[Sentence]:
    """Read the sentences of a file, without empty nodes (8.1) and blocks of comments only.

    Words of a multiword token (1-2) that spell it together have surface forms of their own; others
    share its form.

    Raises:
        UserError: the file is not CoNLL-U; names the file and the sentence, counted from 1.
    """
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for block in conllu.parse_sentences(file):
                tokens = conllu.parse_token_and_metadata(block, _FIELDS, {**_RAW})
                if tokens:
                    yield _sentence(tokens, f"{path}, sentence {number},")
                    number += 1
    except (ParseException, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise UserError(f"{path} is not UTF-8: save the file as UTF-8.") from None
        raise UserError(
            f"{path}, sentence {number}, is not CoNLL-U ({str(error)[:120]}): parse it again."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): correct the path.") from None


def _sentence(tokens: conllu.TokenList, where: str) -> Sentence:
    columns = len(DEFAULT_FIELDS)
    for token in tokens:
        if len(token) != columns:
            count = f"more than {columns}" if len(token) > columns else len(token)
            raise UserError(
                f"{where} has a line of {count} columns where CoNLL-U has {columns}, separated by "
                "tabs: write the file again."
            )
    words = [token for token in tokens if not isinstance(token["id"], tuple)]
    ranges = [token for token in tokens if isinstance(token["id"], tuple) and "-" in token["id"]]
    for number, word in enumerate(words, start=1):
        if word["id"] != number:
            raise UserError(
                f"{where} has the word number {word['id']} where {number} was expected: number "
                "words from 1 in every sentence, and separate sentences by a blank line."
            )
        if word["head"] is None or not 0 <= word["head"] <= len(words) or word["head"] == number:
            raise UserError(
                f"{where} has the head {'_' if word['head'] is None else word['head']} for word "
                f"{number} where 0 (root) or another of its {len(words)} words was expected: parse "
                "it again."
            )
    if any(token["id"][2] > len(words) for token in ranges):
        raise UserError(f"{where} has a range beyond its {len(words)} words: parse it again.")
    surfaces, places = _surfaces([word["form"] for word in words], ranges)
    found = (Word(p, w["head"] - 1, w["deprel"]) for p, w in zip(places, words, strict=True))
    return Sentence(tokens.metadata.get("text"), tuple(surfaces), tuple(found))


def _surfaces(forms: list[str], ranges: list[conllu.Token]) -> tuple[list[str], list[int]]:
    """Surface forms, and the index of the form of every word."""
    shared: dict[int, tuple[int, str]] = {}
    for token in ranges:
        first, _, last = token["id"]
        inner = range(first - 1, last)
        if "".join(forms[i] for i in inner) != token["form"]:
            shared |= dict.fromkeys(inner, (first, token["form"]))
    surfaces: list[str] = []
    places: list[int] = []
    for i, form in enumerate(forms):
        if i not in shared:
            surfaces.append(form)
        elif shared[i] != shared.get(i - 1):
            surfaces.append(shared[i][1])
        places.append(len(surfaces) - 1)
    return surfaces, places
