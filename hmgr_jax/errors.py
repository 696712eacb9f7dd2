"""Errors that the user can fix: printed as a sentence, not a traceback."""


class UserError(Exception):
    """One sentence: what is wrong, what was found, what to do; the command exits with 2."""


class FoundNonFinite(UserError):
    """A score, feature or loss is NaN or infinite; such a value never counts as a good rank."""
