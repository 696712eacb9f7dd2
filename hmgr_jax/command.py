"""What all commands share: a command line whose errors are one sentence, never a traceback."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from hmgr_jax.errors import UserError, printable

REPEAT_AFTER = 60.0
"""Seconds after which a warning has scrolled away."""


class HelpShown(Exception):
    """``--help`` was printed, and nothing else is to be done."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Help that shows the type of every option, and its default where it has one."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return {int: "INT", float: "FLOAT"}.get(action.type, "TEXT")  # type: ignore[call-overload]

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default in (None, False, argparse.SUPPRESS) or "%(default)" in text:
            return text
        return f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """A command line without abbreviations, whose errors are `UserError`.

    Args:
        prog: the command, as ``hmgr-jax prepare``.
        description: what ``--help`` says above the options.
        **more: as `argparse.ArgumentParser`.
    """

    def __init__(self, prog: str | None = None, description: str | None = None, **more: Any):
        super().__init__(
            prog, description=description, allow_abbrev=False, formatter_class=Help, **more
        )
        self._command = ""

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options in ``arguments``.

        Raises:
            UserError: an unknown option (with a spelling hint), or an invalid value.
            HelpShown: ``--help`` was among them.
        """
        flags, unknown = self.parse_known_args(arguments)
        if unknown:
            given = unknown[0].partition("=")[0]
            named = [name for name in vars(flags) if name != self._command]
            known = ["--help", *(f"--{name.replace('_', '-')}" for name in named)]
            close = difflib.get_close_matches(given, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}."
            raise UserError(f"There is no flag {given!r}; {hint}")
        return flags

    def add_commands(self, noun: str, summaries: Mapping[str, str]) -> dict[str, Parser]:
        """{name: parser of a sub-command} for {name: what it does}.

        The name that is given is ``flags.NOUN``; ``noun`` says what it is in messages.
        """
        self._command = noun
        commands = self.add_subparsers(dest=noun, metavar=noun.upper(), required=True, title=noun)
        return {
            name: commands.add_parser(
                name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}."
            )
            for name, summary in summaries.items()
        }

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """The same sentence in all versions of Python."""
        if action.choices is None or value in action.choices:
            return
        choices = ", ".join(map(str, action.choices))
        if isinstance(action, argparse._SubParsersAction):
            raise UserError(f"There is no {action.dest} {value!r}: choose from {choices}.")
        name = action.option_strings[0] if action.option_strings else action.dest
        raise UserError(f"{name} is one of {choices}, not {value!r}.")

    def error(self, message: str) -> NoReturn:
        """Called by argparse for an invalid value."""
        raise UserError(f"{message[:1].upper()}{message[1:]}; --help shows the command line.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Called by argparse after ``--help``."""
        raise HelpShown


def required(flags: argparse.Namespace, name: str) -> Any:
    """The value of an option that has to be given.

    Raises:
        UserError: it is missing.
    """
    value = getattr(flags, name)
    if not value:
        raise UserError(f"--{name} is missing: give it; --help shows the command line.")
    return value


def guarded(run: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Call ``run`` with the arguments of ``argv`` (default ``sys.argv``); the exit code.

    Errors the user can fix, errors of the operating system and Ctrl-C are one line ``error: ...``
    and an exit code other than 0; warnings are lines ``warning: ...``, which are repeated at the
    end if they are older than `REPEAT_AFTER`.
    """
    arguments = list(sys.argv if argv is None else argv)[1:]
    # Orbax's other writes after one that failed; they are collected after its error was printed.
    warnings.filterwarnings("ignore", "coroutine 'async_serialize.* was never awaited")
    with warnings.catch_warnings(), _quiet_threads(), _repeated_warnings():
        try:
            return run(arguments)
        except HelpShown:
            return 0
        except UserError as error:
            return _fail(str(error))
        except OSError as error:
            what = error.filename or "a file or connection"
            return _fail(
                f"The system refused {what} ({error.strerror or error}): check the path, its "
                "permissions and the free disk space."
            )
        except KeyboardInterrupt:
            return _fail("Stopped by Ctrl-C: run the same command to resume.", code=130)


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Suppress the traces that Orbax's threads print after a failed save, dozens of the same."""
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
    print("error: " + printable(sentence.replace("\n", " ")), file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def _repeated_warnings() -> Iterator[None]:
    """Print warnings at once, and those of long ago again at the end."""
    shown: dict[str, float] = {}

    def show(message: Warning | str, *_: object, **__: object) -> None:
        text = printable(str(message).replace("\n", " "))
        print(f"warning: {text}", file=sys.stderr, flush=True)
        shown.setdefault(text, time.monotonic())

    warnings.showwarning = show
    try:
        yield
    finally:
        for message, when in shown.items():
            if time.monotonic() - when > REPEAT_AFTER:
                print(f"warning: {message}", file=sys.stderr, flush=True)
