"""Measure something on this machine, or of a trained run, and print it as one JSON row.

``python -m hmgr_jax.bench NAME`` with one of

    step         a training step: --model --batch --dim --dtype --devices ...
    pictures     pictures a second, decoded and augmented: --folder --batch --threads --workers ...
    pipeline     batches a second from a feature file: --batch --threads --sparse-gb ...
    recall       a full evaluation: --images --captions --dim ...
    match        PCME's loss, and all its pairs: --batch --dim --samples --images --captions ...
    graph        a vocabulary's graph: --words --batch --neighbours ...
    edgeconv     a layer of DGCNN in two forms: --batch --points --neighbours ...
    index        an index of random vectors: --vectors --dim --engine --queries --k ...
    shortlist    what re-ranking a shortlist keeps and saves: --workdir --candidates 20,50,100 ...
    soak         a run killed again and again, and whether it ends the same: --kills --seed ...
    sigma        does uncertainty rise where words or regions are missing: --workdir --split ...

``python -m hmgr_jax.bench NAME --help`` lists the options with their defaults. ``step`` needs
nothing but jax, flax, optax and numpy.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Sequence

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError

NAMES = (
    *("step", "pipeline", "pictures", "recall", "match", "graph", "edgeconv", "index", "shortlist"),
    *("soak", "sigma"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a user's mistake, 1 where the row has problems."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Run the benchmark that the first argument names."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in NAMES:
        raise UserError(f"There is no benchmark {name!r}: choose from {', '.join(NAMES)}.")
    benchmark = importlib.import_module(f"hmgr_jax.benchmarks.{name}").run
    options = vars(_parser(benchmark).parse(rest))
    if options.pop("help"):
        print(inspect.getdoc(benchmark))
        print("".join(f"\n    --{k.replace('_', '-')} {v}" for k, v in options.items()))
        return 0
    row = benchmark(**options)
    print(json.dumps(row))
    return 1 if row.get("problems") else 0


def _parser(benchmark: Callable[..., dict]) -> Parser:
    """A flag for every argument of the benchmark, of the type of its default."""
    parser = Parser()
    for name, argument in inspect.signature(benchmark).parameters.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(argument.default), default=argument.default)
    return parser


if __name__ == "__main__":
    sys.exit(main())
