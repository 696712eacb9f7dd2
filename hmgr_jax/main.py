"""``python -m hmgr_jax.main --config configs/worlds.py``: train, evaluate, encode or show.

    --config configs/coco.py:imram       a recipe, and which system
    --config.train.lr=1e-3               any value of it
    --workdir runs/mine                  where everything of the run lies
    --mode train|evaluate|encode|show
    --seeds 0,1,2                        a run for each, and their mean and spread
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from hmgr_jax.errors import UserError
from hmgr_jax.training import config as configs

MODES = ("train", "evaluate", "encode", "show")


def define_flags(argv: Sequence[str]) -> flags.FlagValues:
    """The command line; values of its own, so that a program may call ``main`` repeatedly."""
    values = flags.FlagValues()
    configs.define_flag(values, argv)
    own = {"flag_values": values}
    flags.DEFINE_enum("mode", "train", MODES, "What to do.", **own)
    flags.DEFINE_string(
        "workdir", None, "Folder of the run; default runs/RECIPE-MODEL.", **own
    )
    flags.DEFINE_list("seeds", None, "Train once for each and report mean and spread.", **own)
    flags.DEFINE_enum("split", "test", ("train", "dev", "test"), "For evaluate, encode.", **own)
    flags.DEFINE_boolean("help", False, "Print this.", **own)
    return values


def run(values: flags.FlagValues) -> int:
    """Do what the command line says; the exit code."""
    if values.help:
        print(f"{__doc__}\n{values.get_help()}")
        return 0
    from hmgr_jax.training import commands  # slow to import: after the flags are known to be right

    if values.mode == "train":
        seeds = [_integer(seed) for seed in values.seeds or ()]
        return commands.train(_recipe(values), _workdir(values), seeds)
    if values.mode == "show":
        return commands.show(_recipe(values))
    if values.mode == "evaluate":
        return commands.evaluate(_workdir(values), values.split, values.config)
    return commands.encode(_workdir(values), values.split, values.config)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn a user's mistake into one sentence and exit code 2."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            argv = sys.argv if argv is None else argv
            values = define_flags(argv)
            configs.parse_flags(values, argv)
            return run(values)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


def _recipe(values: flags.FlagValues) -> ConfigDict:
    if values.config is None:
        raise UserError("A recipe is expected: give one, as --config configs/worlds.py.")
    return values.config


def _workdir(values: flags.FlagValues) -> Path:
    if values.workdir:
        return Path(values.workdir)
    config = _recipe(values)
    return Path("runs") / f"{config.name}-{config.model.name}"


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--seeds is a list of integers such as 0,1,2, not {text!r}.") from None


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
