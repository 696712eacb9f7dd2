"""What all commands share: a command line whose errors are one sentence, never a traceback."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import platform
import re
import select
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hmgr_jax.errors import UserError, reason
from hmgr_jax.terminal import escape_controls

NO_READER = 141
"""The exit code of shells for a command whose output is no longer read."""
FAULT = 70
"""The exit code for a fault of the program."""
REPORTS = "the project's issue tracker"
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
    and an exit code other than 0; any other error is reported as a fault of the program with the
    code `FAULT`, and its traceback is kept in a file. Warnings are lines ``warning: ...``, which
    are repeated at the end if they are older than `REPEAT_AFTER`. If nobody reads the output any
    more, as behind ``| head``, the command ends in silence.
    """
    arguments = list(map(expand_home, list(sys.argv if argv is None else argv)[1:]))
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal in Latin-1 still shows the rest
        sys.stdout.reconfigure(errors="backslashreplace")
    # Orbax's other writes after one that failed; they are collected after its error was printed.
    warnings.filterwarnings("ignore", "coroutine 'async_serialize.* was never awaited")
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # such pictures are refused
    with warnings.catch_warnings(), _quiet_threads(), _repeated_warnings():
        try:
            code = 0
            with contextlib.suppress(HelpShown):
                code = run(arguments)
            sys.stdout.flush()
            return code
        except UserError as error:
            return _fail(str(error))
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _output_is_closed():
                return NO_READER
            what = error.filename or "a file or connection"
            return _fail(
                f"The system refused {what} ({error.strerror or error}): check the path, its "
                "permissions and the free disk space."
            )
        except KeyboardInterrupt:
            return _fail("Stopped by Ctrl-C: run the same command to resume.", code=130)
        except Exception as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                return _fail(
                    f"The memory is not enough ({reason(error)}): use smaller batches or less data."
                )
            return _fail(_fault(error, arguments), code=FAULT)


def expand_home(text: str) -> str:
    """``~/PATH`` with the user's folder; also after ``NAME=``, where shells leave it.

    Nothing else is changed, since a text may be a sentence.
    """
    home = os.path.expanduser("~")
    return re.sub(r"^((?:(?:--)?[\w.-]+=)*)~/", lambda found: f"{found[1]}{home}/", text)


def _output_is_closed() -> bool:
    """Whether standard output has no reader; what is still to be written there is dropped."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # it is not a file, or it is closed
        return False
    state = select.poll()
    state.register(output, 0)  # errors are always reported
    if not any(found & (select.POLLERR | select.POLLHUP) for _, found in state.poll(0)):
        return False
    with open(os.devnull, "w") as nowhere:  # or the interpreter complains as it ends
        os.dup2(nowhere.fileno(), output)
    return True


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


def _fault(error: Exception, arguments: Sequence[str]) -> str:
    """Describe a fault of the program; the traceback goes to a file."""
    trace = "".join(traceback.format_exception(error))
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    kept = "the traceback, which could not be saved"
    with contextlib.suppress(OSError):
        handle, kept = tempfile.mkstemp(prefix="hmgr-jax-fault-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{platform.platform()}, Python {platform.python_version()}\n")
            file.write(f"{' '.join(arguments)}\n\n{trace}")
    what = f"{type(error).__name__}: {reason(error)}, at {where}"
    return f"This is a fault of the program ({what}): please report it with {kept} at {REPORTS}."


def _fail(sentence: str, code: int = 2) -> int:
    print("error: " + escape_controls(sentence.replace("\n", " ")), file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def _repeated_warnings() -> Iterator[None]:
    """Print warnings at once, and those of long ago again at the end."""
    told: dict[str, float] = {}

    def show(message: Warning | str, *_: object, **__: object) -> None:
        text = escape_controls(str(message).replace("\n", " "))
        print(f"warning: {text}", file=sys.stderr, flush=True)
        told.setdefault(text, time.monotonic())

    warnings.showwarning = show
    try:
        yield
    finally:
        for message, when in told.items():
            if time.monotonic() - when > REPEAT_AFTER:
                print(f"warning: {message}", file=sys.stderr, flush=True)
