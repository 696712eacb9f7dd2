"""Train, evaluate, encode, explain or show: ``python -m hmgr_jax.main --config worlds``.

``hmgr-jax train`` and the other modes as sub-commands are the same. ``--help`` lists the options
of a mode.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError
from hmgr_jax.training import recipe_file

MODES = {
    "train": "Train a run, or resume it.",
    "evaluate": "Evaluate the best checkpoint of a run, or an ensemble of runs.",
    "encode": "Write the vectors of a split with their ids.",
    "explain": "Draw what an image and a caption attend to, of systems that score pairs.",
    "show": "Print configuration, model, data and plan of a recipe without training.",
}
SPLITS = ("train", "dev", "test")
LATER = ("evaluate", "encode", "explain")
OPTIONS: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]] = {
    "config": (
        tuple(MODES),
        {"metavar": "RECIPE[:SYSTEM]", "help": "a name, as worlds:imram, or a file"},
    ),
    "config.KEY": (
        tuple(MODES),
        {"metavar": "VALUE", "help": "any value of the recipe, as --config.train.lr=1e-3"},
    ),
    "workdir": (
        tuple(MODES),
        {"metavar": "DIR", "help": "folder of the run; without it runs/RECIPE-SYSTEM"},
    ),
    "seeds": (("train",), {"help": "0,1,2: a run per seed, then their mean and spread"}),
    "split": (LATER, {"choices": SPLITS, "help": "which items (without it test)"}),
    "ensemble": (
        ("evaluate",),
        {"nargs": "+", "metavar": "DIR", "help": "the mean scores of --workdir and these runs"},
    ),
    "pair": (
        ("explain",),
        {
            "nargs": 2,
            "metavar": ("IMAGE", "CAPTION"),
            "help": "ids or numbers of the split, or a sentence of your own",
        },
    ),
    "images": (("explain",), {"metavar": "DIR", "help": "the picture files, named by their ids"}),
    "out": (
        ("explain",),
        {"metavar": "DIR", "help": "without it WORKDIR/explain/IMAGE-CAPTION"},
    ),
    "hosts": (
        ("train", "evaluate"),
        {
            "metavar": "auto|HOST:PORT,N,I",
            "help": "be one of several processes of a run: as the cluster says, or process I of N, "
            "of which process 0 listens at HOST:PORT",
        },
    ),
}
"""{option: modes that take it, and its argparse arguments}."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for an error the user can fix."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    overrides, others = recipe_file.split_overrides(arguments)
    flags = _parse(others)
    config = recipe_file.load(flags.config, overrides) if flags.config is not None else None
    seeds = _seeds(flags.seeds)
    _check_modes(flags)
    if config is not None and config.deterministic:
        # Read when the first device is used, which is later; CPUs are deterministic without it.
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{given} --xla_gpu_deterministic_ops=true".strip()
    from hmgr_jax.distributed import hosts

    with hosts.joined(flags.hosts):
        return _do(flags, config, overrides, seeds)


def _do(
    flags: argparse.Namespace,
    config: ConfigDict | None,
    overrides: dict[str, str | None],
    seeds: Sequence[int],
) -> int:
    # Slow to import: after the options are known to be right.
    from hmgr_jax import modes as commands
    from hmgr_jax.reports import explain

    if flags.mode == "train":
        config = _given(config)
        return commands.train(config, _workdir(flags, config), seeds)
    if flags.mode == "show":
        return commands.show(_given(config))
    split = flags.split or "test"
    if flags.ensemble:
        workdirs = [_workdir(flags, config), *map(Path, flags.ensemble)]
        return commands.ensemble(workdirs, split, overrides)
    # Without a recipe, the values change the configuration that was saved with the run.
    retriever = commands.load(_workdir(flags, config), config, overrides if not config else {})
    if flags.mode == "evaluate":
        return commands.evaluate(retriever, split)
    if flags.mode == "explain":
        return explain.explain(retriever, split, flags.pair, flags.images, flags.out)
    return commands.encode(retriever, split)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options in ``arguments``; ``--help`` shows those of the mode."""
    modes: Mapping[str, Any] = {"choices": tuple(MODES), "default": "train", "help": "what to do"}
    first = Parser(add_help=False)
    first.add_argument("--mode", **modes)
    mode = first.parse_known_args(arguments)[0].mode
    parser = Parser(f"hmgr-jax {mode}", MODES[mode])
    parser.add_argument("--mode", **modes)
    for name, (takers, options) in OPTIONS.items():
        help_text = options["help"] if mode in takers else argparse.SUPPRESS
        parser.add_argument(f"--{name}", **{**options, "help": help_text})
    return parser.parse(arguments)


def _given(config: ConfigDict | None) -> ConfigDict:
    if config is None:
        raise UserError("A recipe is expected: give one, as --config worlds.")
    return config


def _workdir(flags: argparse.Namespace, config: ConfigDict | None) -> Path:
    if flags.workdir:
        return Path(flags.workdir)
    if config is None:
        raise UserError(f"--mode={flags.mode} needs a trained run: give its folder as --workdir.")
    return Path("runs") / f"{config.name}-{config.model.name}"


def _seeds(text: str | None) -> list[int]:
    """The seeds in ``0,1,2``, none where the option is not given."""
    if text is None:
        return []
    texts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in texts):
        raise UserError(
            f"--seeds expects integers from 0 with commas between, such as 0,1,2, not {text!r}."
        )
    seeds = [int(part) for part in texts]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds names a seed twice: {text}.")
    return seeds


def _check_modes(flags: argparse.Namespace) -> None:
    """Refuse options of other modes, and combinations that have no meaning."""
    for name, (takers, _) in OPTIONS.items():
        if getattr(flags, name) is not None and flags.mode not in takers:
            modes = " and ".join(f"--mode={mode}" for mode in takers)
            raise UserError(f"--{name} is for {modes}, not for --mode={flags.mode}: leave it out.")
    if flags.mode == "explain" and flags.pair is None:
        raise UserError(
            "--mode=explain needs an image and a caption: give ids or numbers of the split, as "
            "--pair IMAGE CAPTION, or a sentence of your own for CAPTION."
        )
    if flags.ensemble and flags.config is not None:
        raise UserError(
            "--ensemble evaluates every run with the configuration that it was saved with: leave "
            "--config out and give --workdir; single values can be changed for all of them, as "
            "--config.data.root=FOLDER."
        )
    if flags.ensemble and flags.hosts:
        raise UserError("--ensemble runs in one process: leave --hosts out.")


if __name__ == "__main__":
    sys.exit(main())
