"""The exception for mistakes that a person can mend: printed as a sentence, not a traceback."""


class UserError(Exception):
    """What was expected, what was found and what to do, in one sentence; ``main`` exits with 2."""


class FoundNonFinite(UserError):
    """A score, feature or loss is NaN or infinite; such a value never counts as a good rank."""
