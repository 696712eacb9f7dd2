"""Measure something on this machine and print it as one JSON row.

``python -m hmgr_jax.bench NAME`` with one of

    step         a training step: --model --batch --dim --dtype --devices ...
    pictures     pictures a second, decoded and augmented: --folder --batch --threads --workers ...
    pipeline     batches a second from a feature file: --batch --threads --sparse-gb ...
    recall       a full evaluation: --images --captions --dim ...
    index        an index of random vectors: --vectors --dim --engine --queries --k ...

``python -m hmgr_jax.bench NAME --help`` lists the options with their defaults. ``step`` needs
nothing but jax, flax, optax and numpy. Benchmarks that only developers run are in the folder
``benchmarks/`` of the repository.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError

NAMES = ("step", "pipeline", "pictures", "recall", "index")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for an invalid command line, 1 where the row has problems."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Run the benchmark that the first argument names."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in NAMES:
        raise UserError(f"There is no benchmark {name!r}: choose from {', '.join(NAMES)}.")
    return _run(importlib.import_module(f"hmgr_jax.benchmarks.{name}").run, rest)


def main_of(benchmark: Callable[..., dict], argv: Sequence[str] | None = None) -> int:
    """A whole command for one benchmark, with an option for every argument of the function.

    Args:
        benchmark: every argument has a default, whose type is that of the option; returns the row.
        argv: the program's name and the options; by default ``sys.argv``.

    Returns:
        the exit code; see `main`.
    """
    return guarded(partial(_run, benchmark), argv)


def _run(benchmark: Callable[..., dict], arguments: Sequence[str]) -> int:
    parser = Parser()
    for name, argument in inspect.signature(benchmark).parameters.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(argument.default), default=argument.default)
    options = vars(parser.parse(arguments))
    if options.pop("help"):
        print(inspect.getdoc(benchmark))
        print("".join(f"\n    --{k.replace('_', '-')} {v}" for k, v in options.items()))
        return 0
    row = benchmark(**options)
    print(json.dumps(row))
    return 1 if row.get("problems") else 0


if __name__ == "__main__":
    sys.exit(main())
