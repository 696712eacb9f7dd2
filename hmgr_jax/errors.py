"""Errors that the user can fix: printed as a sentence, not a traceback."""


class UserError(Exception):
    """One sentence: what is wrong, what was found, what to do; the command exits with 2."""


class FoundNonFinite(UserError):
    """A score, feature or loss is NaN or infinite; such a value never counts as a good rank."""


def printable(text: str) -> str:
    """Text for a terminal: control characters are shown as escapes, as ``\\x1b``, not sent."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
