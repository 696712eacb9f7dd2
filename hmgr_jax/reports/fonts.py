"""Fonts for the characters that Matplotlib's own font lacks, such as Chinese ones."""

from __future__ import annotations

import contextlib
import functools
import unicodedata
import warnings
from collections.abc import Iterator

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

OWN = "DejaVu Sans"
"""The font that comes with Matplotlib."""
BOXES = "Last Resort"
"""Another one of Matplotlib's, which has a box for every character."""
_missing: set[str] = set()


def families(text: str) -> list[str]:
    """Names of the installed fonts that have the characters of a text, `OWN` first.

    Warns, once a process, of characters that no installed font has.
    """
    found = [OWN]
    for character in sorted({*text}):
        if character.isascii() or character.isspace():
            continue
        name = _font_of(character)
        if name is None:
            if not _missing:
                warnings.warn(
                    f"no installed font has {character!r}, so boxes are drawn instead of such "
                    "characters: install a font that has them, such as Noto Sans CJK",
                    RuntimeWarning,
                    stacklevel=2,
                )
            _missing.add(character)
        elif name not in found:
            found.append(name)
    return found


def set_fonts(figure: Figure) -> None:
    """Give every text of a figure fonts that have its characters."""
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not text.get_text().isascii():
            text.set_fontfamily(families(text.get_text()))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Draw without Matplotlib's warning of each missing character."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def columns(text: str) -> int:
    """Width of a text in letters; a Chinese, Japanese or Korean character is two wide."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


@functools.cache
def _font_of(character: str) -> str | None:
    """Name of an installed font with this character; None if there is none."""
    fonts = font_manager.fontManager.ttflist
    upright = (font for font in fonts if font.style == "normal" and font.weight == 400)
    upright = (font for font in upright if not font.name.startswith(BOXES))
    ordered = sorted(upright, key=lambda font: (font.name != OWN, font.name))
    return next((font.name for font in ordered if ord(character) in _characters(font.fname)), None)


@functools.cache
def _characters(file: str) -> frozenset[int]:
    """Code points of the characters of a font."""
    try:
        return frozenset(font_manager.get_font(file).get_charmap())
    except (OSError, RuntimeError):  # a damaged file
        return frozenset()
