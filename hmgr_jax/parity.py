"""Do our models give the numbers of the papers' released code?

``python -m hmgr_jax.parity FOLDER [CASE ...]`` runs the known answers in FOLDER: all of them, or
those that are named (a pattern like ``'imram_*'`` names many). What a case holds is computed anew
from its inputs and weights, at full precision, and compared:

    case | quantity | largest error | tolerance (|x| is their number) | ok

Exit code 0: all agree; 1: something is off; 2: a case is not understood (what is understood is
checked all the same), or there is no such folder or case.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a user's mistake."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Check the cases that the command line names; the exit code."""
    parser = Parser()
    parser.add_argument("folder", nargs="?")
    parser.add_argument("cases", nargs="*")
    flags = parser.parse(arguments)
    if flags.help:
        print(__doc__)
        return 0
    if flags.folder is None:
        raise UserError("The folder of known answers is missing: python -m hmgr_jax.parity FOLDER.")
    from hmgr_jax.interop import known_answers  # slow to import: after the arguments are right
    from hmgr_jax.progress import table

    paths, console = known_answers.find(Path(flags.folder), flags.cases), Console(stderr=True)
    waiting = track(
        paths, "Checking", console=console, transient=True, disable=not console.is_terminal
    )
    comparisons, problems = known_answers.check_all(waiting)
    off = [c for c in comparisons if c.fault]
    if comparisons:
        title = f"{len(comparisons) - len(off)} of {len(comparisons)} quantities agree"
        table(title, [c.row() for c in comparisons])
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr, flush=True)
    return 1 if off else 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
