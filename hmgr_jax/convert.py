"""Weights of official releases in, safetensors out.

``python -m hmgr_jax.convert import`` makes a run folder of a file of weights:

    --weights FILE               .pth, .pt, .pth.tar, .safetensors or .npz
    --config configs/f30k.py:imram      the recipe that the weights fit
    --config.model.variant=text  any value of it; else the training script's options count, where
                                 the file has them, before the recipe
    --vocabulary VOCAB.json      in SCAN's layout, the one that the weights were trained with
    --workdir runs/official      the folder to make
    --model imram                whose official names the file has; by default the recipe's model

What ``export`` wrote needs neither --config nor --vocabulary. Evaluate with ``python -m
hmgr_jax.main --workdir runs/official --mode=evaluate --config.data.root=DATA``.

``python -m hmgr_jax.convert export`` writes the best step of a run, under the official names where
there are any:

    --workdir runs/mine          a trained run
    --out FILE.safetensors       the file to make
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError
from hmgr_jax.training import recipe_file

VERBS = {
    "import": ("weights", "config", "vocabulary", "workdir", "model"),
    "export": ("workdir", "out"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a user's mistake."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help"):
        print(__doc__)
        return 0
    if verb not in VERBS:
        raise UserError(f"There is no conversion {verb!r}: choose import or export.")
    overrides, others = recipe_file.split_overrides(rest)
    parser = Parser()
    for name in VERBS[verb]:
        parser.add_argument(f"--{name}")
    flags = parser.parse(others)
    if flags.help:
        print(__doc__)
        return 0
    if verb == "import":
        return _import(flags, overrides)
    if overrides:
        raise UserError(
            f"export takes the run as it is: leave out --config.{next(iter(overrides))}."
        )
    return _export(flags)


def _import(flags: argparse.Namespace, overrides: Mapping[str, str | None]) -> int:
    weights, workdir = _demand(flags, "weights"), _demand(flags, "workdir")
    from hmgr_jax.conversion import (
        weights as conversion,  # slow to import: after the flags are known to be right
    )

    recipe = flags.config
    if recipe and ":" not in recipe and flags.model:
        recipe = f"{recipe}:{flags.model}"
    config = recipe_file.load(recipe, overrides) if recipe else None
    conversion.import_weights(
        Path(weights),
        Path(workdir),
        config=config,
        overrides=overrides,
        vocabulary=Path(flags.vocabulary) if flags.vocabulary else None,
        model=flags.model,
    )
    return 0


def _export(flags: argparse.Namespace) -> int:
    workdir, out = _demand(flags, "workdir"), _demand(flags, "out")
    from hmgr_jax.conversion import weights as conversion

    conversion.export_weights(Path(workdir), Path(out))
    return 0


def _demand(flags: argparse.Namespace, name: str) -> str:
    value = getattr(flags, name)
    if not value:
        raise UserError(f"--{name} is missing: give it; --help shows the command line.")
    return value


if __name__ == "__main__":
    sys.exit(main())
