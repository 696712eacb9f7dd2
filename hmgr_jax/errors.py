"""Errors that the user can fix: printed as a sentence, not a traceback."""

from __future__ import annotations


class UserError(Exception):
    """One sentence: what is wrong, what was found, what to do; the command exits with 2."""


class FoundNonFinite(UserError):
    """A score, feature or loss is NaN or infinite; such a value never counts as a good rank."""


def reason(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it does not fit into the memory"
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
