"""The console script ``hmgr-jax``: a sub-command calls the command of the same name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from hmgr_jax.command import Parser, guarded

MODES = {
    "train": "train a run, or resume it",
    "evaluate": "evaluate the best checkpoint of a run, or an ensemble",
    "encode": "write the vectors of a split with their ids",
    "explain": "draw what one image-caption pair attends to",
    "show": "print configuration, model, data and plan without training",
}
"""Sub-commands that are modes of ``python -m hmgr_jax.main``."""
MODULES = {
    "prepare": "convert common dataset formats to one layout",
    "search": "build, query, update and swap an index",
    "serve": "serve an index: an API and a page",
    "convert": "import released weights, export safetensors",
    "parity": "compare our numbers with those of released code",
    "bench": "measure speed and memory on this machine",
}
"""Sub-commands that are modules of their own."""
PACKAGES = ("search", "serve")
"""Modules that are packages with a module ``command``."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit codes are those of its sub-commands."""
    program, *arguments = list(sys.argv if argv is None else argv)
    name, *rest = arguments or ["--help"]
    if name in MODES:
        return _main_of("main")([program, f"--mode={name}", *rest])
    if name in MODULES:
        return _main_of(f"{name}.command" if name in PACKAGES else name)([program, *rest])
    parser = Parser("hmgr-jax", "Cross-modal retrieval in JAX.")
    parser.add_commands("command", MODES | MODULES)
    return guarded(lambda given: int(bool(parser.parse(given))), [program, name])


def _main_of(module: str) -> Callable[[Sequence[str]], int]:
    return importlib.import_module(f"hmgr_jax.{module}").main


if __name__ == "__main__":
    sys.exit(main())
