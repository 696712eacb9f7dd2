"""The captions of Flickr8k as published: ``Flickr8k.token.txt`` and lists of images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hmgr_jax.data.text.captions import read_lines
from hmgr_jax.errors import UserError

_LINE = re.compile(r"(\S+)#(\d+)\s+(.*\S)")


def read_flickr8k(tokens: str | Path, images: str | Path) -> dict[str, list[str]]:
    """Captions by image: those of the images listed in ``images`` (a name a line), in its order.

    ``tokens`` has a line ``name#number <tab> caption`` for every caption; captions are ordered by
    their number. Raises ``UserError`` for a line of another form, an image listed twice, and one
    without captions.
    """
    tokens, images = Path(tokens), Path(images)
    numbered: dict[str, list[tuple[int, str]]] = {}
    for number, name in enumerate(read_lines(images), start=1):
        if name in numbered:
            raise UserError(f"{images}:{number} lists {name} again: every image must occur once.")
        numbered[name] = []
    for name, place, text in _lines_of(tokens):
        if name in numbered:
            numbered[name].append((place, text))
    without = next((name for name, captions in numbered.items() if not captions), None)
    if without is not None:
        raise UserError(f"{tokens} has no caption of {without}, which {images} lists.")
    return {name: [text for _, text in sorted(found)] for name, found in numbered.items()}


def captions_by_id(tokens: str | Path) -> dict[str, str]:
    """Every caption of ``Flickr8k.token.txt`` by its id, ``name#number``; errors as above."""
    return {f"{name}#{place}": text for name, place, text in _lines_of(Path(tokens))}


def _lines_of(tokens: Path) -> Iterator[tuple[str, int, str]]:
    """(image, number, caption) of every line."""
    for number, line in enumerate(read_lines(tokens), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(
                f'{tokens}:{number} is not "name#number, tab, caption" but {line[:40]!r}: give '
                "Flickr8k's own token file."
            )
        yield match[1], int(match[2]), match[3]
