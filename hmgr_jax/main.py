"""Train, evaluate, encode or show.

``python -m hmgr_jax.main --config configs/worlds.py`` with

    --config configs/coco.py:imram       a recipe, and which system
    --config.train.lr=1e-3               any value of it
    --workdir runs/mine                  where everything of the run lies; default runs/RECIPE-MODEL
    --mode train|evaluate|encode|explain|show
    --split test|dev|train               for evaluate, encode and explain
    --seeds 0,1,2                        a run for each, and their mean and spread
    --ensemble DIR [DIR ...]             for evaluate: the mean scores of --workdir and these runs
    --pair IMAGE CAPTION                 for explain: ids or numbers, or a sentence of your own
    --images FOLDER                      for explain: the picture files, named by their ids
    --out FOLDER                         for explain; default WORKDIR/explain/IMAGE-CAPTION
    --hosts auto | HOST:PORT,N,I         be one of several processes of a run: as the cluster says,
                                         or process I of N, of which process 0 listens at HOST:PORT
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError
from hmgr_jax.training import recipe_file

MODES = ("train", "evaluate", "encode", "explain", "show")
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
    _seeds(flags)
    _check_explain(flags)
    _check_ensemble(flags)
    _check_hosts(flags)
    if config is not None and config.deterministic:
        # Read when the first device is used, which is later; CPUs are deterministic without it.
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{given} --xla_gpu_deterministic_ops=true".strip()
    from hmgr_jax.distributed import hosts

    with hosts.joined(flags.hosts):
        return _do(flags, config, overrides)


def _do(
    flags: argparse.Namespace, config: ConfigDict | None, overrides: dict[str, str | None]
) -> int:
    # Slow to import: after the flags are known to be right.
    from hmgr_jax import modes as commands
    from hmgr_jax.reports import explain

    if flags.mode == "train":
        config = _demand(config)
        return commands.train(config, _workdir(flags, config), _seeds(flags))
    if flags.mode == "show":
        return commands.show(_demand(config))
    if flags.ensemble:
        workdirs = [_workdir(flags, config), *map(Path, flags.ensemble)]
        return commands.ensemble(workdirs, flags.split, overrides)
    # Without a recipe, the values change the configuration that was saved with the run.
    retriever = commands.load(_workdir(flags, config), config, overrides if not config else {})
    if flags.mode == "evaluate":
        return commands.evaluate(retriever, flags.split)
    if flags.mode == "explain":
        return explain.explain(retriever, flags.split, flags.pair, flags.images, flags.out)
    return commands.encode(retriever, flags.split)


def _parser() -> Parser:
    """The flags that are no values of a recipe."""
    parser = Parser()
    parser.add_argument("--config")
    parser.add_argument("--mode", choices=MODES, default="train")
    parser.add_argument("--workdir")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--seeds")
    parser.add_argument("--ensemble", nargs="+")
    parser.add_argument("--pair", nargs=2)
    parser.add_argument("--images")
    parser.add_argument("--out")
    parser.add_argument("--hosts")
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


def _check_ensemble(flags: argparse.Namespace) -> None:
    if flags.ensemble and flags.mode != "evaluate":
        raise UserError(f"--ensemble is for --mode=evaluate, not for --mode={flags.mode}.")
    if flags.ensemble and flags.config is not None:
        raise UserError(
            "--ensemble evaluates every run with the configuration that it was saved with: leave "
            "--config out and give --workdir; single values can be changed for all of them, as "
            "--config.data.root=FOLDER."
        )


def _check_hosts(flags: argparse.Namespace) -> None:
    if flags.hosts and (flags.mode not in ("train", "evaluate") or flags.ensemble):
        what = "--ensemble" if flags.ensemble else f"--mode={flags.mode}"
        raise UserError(
            f"--hosts is for training and evaluation of a run, not for {what}: start one process."
        )


def _check_explain(flags: argparse.Namespace) -> None:
    if flags.mode == "explain":
        if flags.pair is None:
            raise UserError(
                "--mode=explain needs an image and a caption: give ids or numbers of the split, as "
                "--pair IMAGE CAPTION, or a sentence of your own for CAPTION."
            )
        return
    for name in ("pair", "images", "out"):
        if getattr(flags, name) is not None:
            raise UserError(f"--{name} is for --mode=explain, not for --mode={flags.mode}.")


if __name__ == "__main__":
    sys.exit(main())
