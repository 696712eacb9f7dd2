"""Train, evaluate, encode, explain or show: ``python -m hmgr_jax.main --config worlds``.

The modes are also sub-commands, such as ``hmgr-jax train``. ``--help`` lists the options of a mode.
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
    "explain": "Draw what an image and a caption attend to, or read from the memory.",
    "show": "Print configuration, model, data and plan of a recipe without training.",
}
SPLITS = ("train", "dev", "test")
LATER = ("evaluate", "encode", "explain")
OPTIONS: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]] = {
    "config": (
        tuple(MODES),
        {"metavar": "RECIPE[:SYSTEM]", "help": "a name, such as worlds:imram, or a file"},
    ),
    "config.KEY": (
        tuple(MODES),
        {"metavar": "VALUE", "help": "any value of the recipe, such as --config.train.lr=1e-3"},
    ),
    "workdir": (
        tuple(MODES),
        {"metavar": "DIR", "help": "folder of the run (default: runs/RECIPE-SYSTEM)"},
    ),
    "seeds": (("train",), {"help": "0,1,2: one run per seed, then their mean and spread"}),
    "split": (LATER, {"choices": SPLITS, "help": "split of the items (default: test)"}),
    "ensemble": (
        ("evaluate",),
        {
            "nargs": "+",
            "metavar": "DIR",
            "help": "evaluate the mean scores of --workdir and these runs",
        },
    ),
    "pair": (
        ("explain",),
        {
            "nargs": 2,
            "metavar": ("IMAGE", "CAPTION"),
            "help": "ids or numbers of the split, or any sentence as CAPTION",
        },
    ),
    "images": (
        ("explain",),
        {"metavar": "DIR", "help": "folder of the picture files, named by their ids"},
    ),
    "out": (
        ("explain",),
        {"metavar": "DIR", "help": "folder to write (default: WORKDIR/explain/IMAGE-CAPTION)"},
    ),
    "hosts": (
        ("train", "evaluate"),
        {
            "metavar": "auto|HOST:PORT,N,I",
            "help": "join a run of several processes: as the cluster defines it, or as process I "
            "of N with process 0 at HOST:PORT",
        },
    ),
}
"""{option: the modes that accept it, and its argparse arguments}."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, 2 for an error the user can fix."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Parse the command line and run its mode; returns the exit code."""
    overrides, others = recipe_file.split_overrides(arguments)
    flags = _parse(others)
    config = recipe_file.load(flags.config, overrides) if flags.config is not None else None
    seeds = _seeds(flags.seeds)
    _check_modes(flags)
    if config is not None and config.deterministic:
        # XLA reads this flag when the first device is used; CPUs are deterministic without it.
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{given} --xla_gpu_deterministic_ops=true".strip()
    from hmgr_jax.distributed import hosts

    with hosts.joined(flags.hosts):
        return _run_mode(flags, config, overrides, seeds)


def _run_mode(
    flags: argparse.Namespace,
    config: ConfigDict | None,
    overrides: dict[str, str | None],
    seeds: Sequence[int],
) -> int:
    # Slow imports come after the options are checked.
    from hmgr_jax import modes as commands
    from hmgr_jax.reports import explain

    if flags.mode == "train":
        config = _require_recipe(config)
        return commands.train(config, _workdir(flags, config), seeds)
    if flags.mode == "show":
        return commands.show(_require_recipe(config))
    split = flags.split or "test"
    if flags.ensemble:
        workdirs = [_workdir(flags, config), *map(Path, flags.ensemble)]
        return commands.ensemble(workdirs, split, overrides)
    # Without a recipe, overrides change the configuration saved with the run.
    retriever = commands.load(_workdir(flags, config), config, overrides if not config else {})
    if flags.mode == "evaluate":
        return commands.evaluate(retriever, split)
    if flags.mode == "explain":
        return explain.explain(retriever, split, flags.pair, flags.images, flags.out)
    return commands.encode(retriever, split)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse ``arguments``; ``--help`` shows the options of the mode."""
    modes: Mapping[str, Any] = {"choices": tuple(MODES), "default": "train", "help": "the mode"}
    first = Parser(add_help=False)
    first.add_argument("--mode", **modes)
    mode = first.parse_known_args(arguments)[0].mode
    parser = Parser(f"hmgr-jax {mode}", MODES[mode])
    parser.add_argument("--mode", **modes)
    for name, (takers, options) in OPTIONS.items():
        help_text = options["help"] if mode in takers else argparse.SUPPRESS
        parser.add_argument(f"--{name}", **{**options, "help": help_text})
    return parser.parse(arguments)


def _require_recipe(config: ConfigDict | None) -> ConfigDict:
    if config is None:
        raise UserError("A recipe is required: give one, such as --config worlds.")
    return config


def _workdir(flags: argparse.Namespace, config: ConfigDict | None) -> Path:
    if flags.workdir:
        return Path(flags.workdir)
    if config is None:
        raise UserError(f"--mode={flags.mode} needs a trained run: give its folder as --workdir.")
    return Path("runs") / f"{config.name}-{config.model.name}"


def _seeds(text: str | None) -> list[int]:
    """Parse seeds such as ``0,1,2``; empty if the option is not given."""
    if text is None:
        return []
    texts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in texts):
        raise UserError(
            f"--seeds must be integers from 0 separated by commas, such as 0,1,2, got {text!r}."
        )
    seeds = [int(part) for part in texts]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds names a seed twice: {text}.")
    return seeds


def _check_modes(flags: argparse.Namespace) -> None:
    """Refuse options of other modes, and invalid combinations."""
    for name, (takers, _) in OPTIONS.items():
        if getattr(flags, name) is not None and flags.mode not in takers:
            modes = " and ".join(f"--mode={mode}" for mode in takers)
            raise UserError(f"--{name} is for {modes}, not for --mode={flags.mode}: leave it out.")
    if flags.mode == "explain" and flags.pair is None:
        raise UserError(
            "--mode=explain needs --pair IMAGE CAPTION: give ids or numbers of the split, or any "
            "sentence as CAPTION."
        )
    if flags.ensemble and flags.config is not None:
        raise UserError(
            "--ensemble evaluates every run with its saved configuration: leave --config out "
            "and give --workdir. Single values can be changed for all runs, such as "
            "--config.data.root=FOLDER."
        )
    if flags.ensemble and flags.hosts:
        raise UserError("--ensemble runs in one process: leave --hosts out.")


if __name__ == "__main__":
    sys.exit(main())
