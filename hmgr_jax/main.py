"""Train, evaluate, encode or show.

``python -m hmgr_jax.main --config configs/worlds.py`` with

    --config configs/coco.py:imram       a recipe, and which system
    --config.train.lr=1e-3               any value of it
    --workdir runs/mine                  where everything of the run lies; default runs/RECIPE-MODEL
    --mode train|evaluate|encode|show
    --split test|dev|train               for evaluate and encode
    --seeds 0,1,2                        a run for each, and their mean and spread
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError
from hmgr_jax.training import recipe_file

MODES = ("train", "evaluate", "encode", "show")
SPLITS = ("train", "dev", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a user's mistake."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    overrides, others = recipe_file.split_overrides(arguments)
    flags = _parser().parse(others)
    if flags.help:
        print(__doc__)
        return 0
    config = recipe_file.load(flags.config, overrides) if flags.config is not None else None
    seeds = _seeds(flags)
    from hmgr_jax.training import commands  # slow to import: after the flags are known to be right

    if flags.mode == "train":
        config = _demand(config)
        return commands.train(config, _workdir(flags, config), seeds)
    if flags.mode == "show":
        return commands.show(_demand(config))
    # Without a recipe, the values change the configuration that was saved with the run.
    retriever = commands.load(_workdir(flags, config), config, overrides if not config else {})
    if flags.mode == "evaluate":
        return commands.evaluate(retriever, flags.split)
    return commands.encode(retriever, flags.split)


def _parser() -> Parser:
    """The flags that are no values of a recipe."""
    parser = Parser()
    parser.add_argument("--config")
    parser.add_argument("--mode", choices=MODES, default="train")
    parser.add_argument("--workdir")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--seeds")
    return parser


def _demand(config: ConfigDict | None) -> ConfigDict:
    if config is None:
        raise UserError("A recipe is expected: give one, as --config configs/worlds.py.")
    return config


def _workdir(flags: argparse.Namespace, config: ConfigDict | None) -> Path:
    if flags.workdir:
        return Path(flags.workdir)
    if config is None:
        raise UserError(f"--mode={flags.mode} needs a trained run: give its folder as --workdir.")
    return Path("runs") / f"{config.name}-{config.model.name}"


def _seeds(flags: argparse.Namespace) -> list[int]:
    if flags.seeds is None:
        return []
    if flags.mode != "train":
        raise UserError(f"--seeds is for training, not for --mode={flags.mode}: leave it out.")
    texts = [text.strip() for text in flags.seeds.split(",")]
    if not all(text.isascii() and text.isdigit() for text in texts):
        raise UserError(
            f"--seeds expects integers from 0 with commas between, such as 0,1,2, not "
            f"{flags.seeds!r}."
        )
    seeds = [int(text) for text in texts]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds names a seed twice: {flags.seeds}.")
    return seeds


if __name__ == "__main__":
    sys.exit(main())
