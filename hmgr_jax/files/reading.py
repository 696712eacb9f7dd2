"""What all readers of others' files share: errors in one sentence, and sizes that are possible."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError, reason

SMALL = 256 << 20
"""Bytes that any file may take in memory."""
PACKED = 200
"""Bytes in memory of a byte in the file, at most; features of mostly zeros reach 100."""


@contextlib.contextmanager
def readable(place: object, what: str, advice: str) -> Iterator[None]:
    """Turn every error of a library that reads a file into a `UserError`.

    The sentence is ``PLACE cannot be read as WHAT (the error): ADVICE``. Only calls of the library
    belong into the block, since libraries raise anything for damaged files.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{place} cannot be read as {what} ({reason(error)}): {advice}") from None


def check_packed(wanted: int, stored: int, what: str) -> None:
    """Raise `ValueError` if ``what`` takes bytes in memory out of proportion to those stored."""
    if wanted > max(SMALL, PACKED * stored):
        raise ValueError(f"{what} would take {wanted:,} bytes, of which {stored:,} are stored")


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """`json.loads` that raises ValueError for text that is nested too deeply, too."""
    try:
        return json.loads(text, **hooks)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, advice: str = "download it again.", **hooks: Any) -> Any:
    """Read a JSON file, with or without a byte order mark; ``hooks`` are those of `json.loads`.

    Raises:
        UserError: it cannot be read or is not JSON; the sentence ends with ``advice``.
    """
    try:
        return parse_json(path.read_text("utf-8-sig"), **hooks)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {advice}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({reason(error)}): {advice}") from None


def read_object(path: Path, advice: str) -> dict[str, Any]:
    """Read the object in a JSON file; raises `UserError` as `read_json`, for other values too."""
    found = read_json(path, advice)
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__} instead of an object: {advice}")
    return found
