"""Find items of a split by an id, a number or a sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError

_LOOKS_LIKE_AN_ID = re.compile(r"\S+#\d+")


class Caption(NamedTuple):
    """A caption of a split, or another sentence."""

    sentence: str
    id: str | None
    """None for another sentence."""


def find_image(split: Split, name: str) -> int:
    """The number of the image (or video) with the id, or else the number, ``name``.

    Raises:
        UserError: there is no such image.
    """
    return find_item(split.visual, split.ids[split.visual], name, split.name)


def find_caption(split: Split, text: str) -> Caption:
    """The caption with the id or number ``text``, or else ``text`` as a sentence.

    Raises:
        UserError: ``text`` is empty, or looks like an id or a number and is unknown.
    """
    ids = split.ids["text"]
    if not text.strip():
        raise UserError("The caption is empty: give an id, a number or a sentence.")
    if text in ids or _is_number(text) or _LOOKS_LIKE_AN_ID.fullmatch(text):
        item = find_item("caption", ids, text, split.name)
        return Caption(split.sources["text"].captions[item], ids[item])  # type: ignore[attr-defined]
    if text in split.ids[split.visual]:
        own = next(name for name in ids if name.rpartition("#")[0] == text)
        what = "an image" if split.visual == "image" else f"a {split.visual}"
        raise UserError(f"{text} is {what}, not a caption: give one of its captions, as {own}.")
    return Caption(text, None)


def find_item(what: str, ids: Sequence[str], name: str, split: str) -> int:
    """The number of the item with the id, or else the number, ``name``.

    Ids have priority, because many data sets have numbers as ids. Raises UserError if there is no
    such item.
    """
    if name in ids:
        return list(ids).index(name)
    if _is_number(name) and int(name) < len(ids):
        return int(name)
    close = difflib.get_close_matches(name, ids, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the first is {ids[0]}."
    raise UserError(
        f"There is no {what} {name!r} among the {len(ids)} of the {split} split, neither as an id "
        f"nor as a number from 0 to {len(ids) - 1}; {hint}"
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
