"""What all commands share: a user's mistake is one sentence on stderr, never a traceback."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from hmgr_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """A command line without abbreviations, whose mistakes are UserErrors."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("-h", "--help", action="store_true")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The flags in ``arguments``.

        Raises:
            UserError: an unknown flag (with a spelling hint), or a value that does not fit.
        """
        flags, unknown = self.parse_known_args(arguments)
        if unknown:
            given = unknown[0].partition("=")[0]
            known = [f"--{name.replace('_', '-')}" for name in vars(flags)]
            close = difflib.get_close_matches(given, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}."
            raise UserError(f"There is no flag {given!r}; {hint}")
        return flags

    def error(self, message: str) -> NoReturn:
        """Called by argparse for a value that does not fit."""
        raise UserError(f"{message[:1].upper()}{message[1:]}; --help shows the command line.")


def guarded(run: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """``run`` with the arguments of ``argv`` (default ``sys.argv``); the exit code.

    Mistakes of the user, refusals of the system and Ctrl-C end in one line ``error: ...`` and an
    exit code other than 0; warnings are lines ``warning: ...``.
    """
    arguments = list(sys.argv if argv is None else argv)[1:]
    # Writes of Orbax behind the one that failed; they are collected after the sentence about it.
    warnings.filterwarnings("ignore", "coroutine 'async_serialize.* was never awaited")
    with warnings.catch_warnings(), _quiet_threads():
        warnings.showwarning = _show_warning
        try:
            return run(arguments)
        except UserError as error:
            return _fail(str(error))
        except OSError as error:
            what = error.filename or "something that this needs"
            return _fail(
                f"The system refused {what} ({error.strerror or error}): look at the path, its "
                "permissions and the room on the disk."
            )
        except KeyboardInterrupt:
            return _fail("Stopped by Ctrl-C: start again whenever you like.", code=130)


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Leave out what Orbax's threads print of a save that failed: dozens of the same trace."""
    former = sys.unraisablehook

    def hook(found: sys.UnraisableHookArgs) -> None:
        if str(found.exc_value) != "Event loop is closed":
            former(found)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = former


def _fail(sentence: str, code: int = 2) -> int:
    print("error: " + sentence.replace("\n", " "), file=sys.stderr, flush=True)
    return code


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
