"""Compare our models with the numbers of the papers' released code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError

DESCRIPTION = """Compute the known answers in a folder anew from their inputs and weights, at full
precision, and compare:

    case | quantity | largest error | tolerance (|x| is their number) | ok

Exit code 0: all agree; 1: a quantity differs; 2: a case is not understood (the others are checked
all the same), or there is no such folder or case."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for an error the user can fix."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Check the cases that the command line names; the exit code."""
    parser = Parser("hmgr-jax parity", DESCRIPTION)
    parser.add_argument("folder", nargs="?", help="folder of known answers")
    parser.add_argument("cases", nargs="*", help="names or patterns ('imram_*'); without them all")
    flags = parser.parse(arguments)
    if flags.folder is None:
        raise UserError("The folder of known answers is missing: hmgr-jax parity FOLDER.")
    from hmgr_jax.interop import known_answers  # slow to import: after the arguments are right
    from hmgr_jax.progress import Progress, table

    paths = known_answers.find(Path(flags.folder), flags.cases)
    with Progress(len(paths), "cases", stream=sys.stderr, shown=sys.stderr.isatty()) as progress:
        comparisons, problems = known_answers.check_all(progress.over(paths))
    wrong = [c for c in comparisons if c.fault]
    if comparisons:
        title = f"{len(comparisons) - len(wrong)} of {len(comparisons)} quantities agree"
        table(title, [c.row() for c in comparisons])
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr, flush=True)
    return 1 if wrong else 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
