"""Measure this machine, and print one JSON row.

``step`` needs nothing but jax, flax, optax and numpy. Benchmarks that only developers run are in
the folder ``benchmarks/`` of the repository.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial

from hmgr_jax.command import Parser, guarded

BENCHMARKS = {
    "step": "a training step: time, FLOPs, memory",
    "pipeline": "batches per second from a feature file",
    "pictures": "pictures per second, decoded and augmented",
    "recall": "a full evaluation of generated codes",
    "index": "an index of random vectors: build time, queries per second, recall",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for an invalid command line, 1 where the row has problems."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Run the benchmark that the first argument names; the exit code."""
    arguments = arguments or ["--help"]
    name = arguments[0]
    parser = Parser("hmgr-jax bench", __doc__)
    commands = parser.add_commands("benchmark", BENCHMARKS)
    if name not in commands:
        parser.parse(arguments)
        return 0
    benchmark = importlib.import_module(f"hmgr_jax.benchmarks.{name}").run
    return _run(benchmark, commands[name], arguments[1:])


def main_of(benchmark: Callable[..., dict], argv: Sequence[str] | None = None) -> int:
    """A whole command for one benchmark, with an option for every argument of the function.

    Args:
        benchmark: every argument has a default, whose type is that of the option; returns the row.
        argv: the program's name and the options; by default ``sys.argv``.

    Returns:
        the exit code; see `main`.
    """
    return guarded(partial(_run, benchmark, Parser()), argv)


def _run(benchmark: Callable[..., dict], parser: Parser, arguments: Sequence[str]) -> int:
    parser.description = inspect.getdoc(benchmark)
    for name, argument in inspect.signature(benchmark).parameters.items():
        flag, default = f"--{name.replace('_', '-')}", argument.default
        parser.add_argument(flag, type=type(default), default=default, help="default %(default)r")
    row = benchmark(**vars(parser.parse(arguments)))
    print(json.dumps(row))
    return 1 if row.get("problems") else 0


if __name__ == "__main__":
    sys.exit(main())
