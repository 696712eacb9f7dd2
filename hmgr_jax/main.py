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
from pathlib import Path

from absl import flags

from hmgr_jax.errors import UserError
from hmgr_jax.training import config as configs

FLAGS = flags.FLAGS
MODES = ("train", "evaluate", "encode", "show")


def define_flags() -> None:
    """Declare the command line."""
    configs.define_flag()
    flags.DEFINE_enum("mode", "train", MODES, "What to do.")
    flags.DEFINE_string("workdir", None, "Folder of the run; default runs/RECIPE-MODEL.")
    flags.DEFINE_list("seeds", None, "Train once for each seed and report mean and spread.")
    flags.DEFINE_enum("split", "test", ("train", "dev", "test"), "For evaluate and encode.")


def run() -> int:
    """Do what the command line says; the exit code."""
    from hmgr_jax.training import commands  # imports jax: after the flags are known to be right

    if FLAGS.mode == "train":
        seeds = [_integer(seed) for seed in FLAGS.seeds or ()]
        return commands.train(_recipe(), _workdir(), seeds)
    if FLAGS.mode == "show":
        return commands.show(_recipe())
    if FLAGS.mode == "evaluate":
        return commands.evaluate(_workdir(), FLAGS.split, FLAGS.config)
    return commands.encode(_workdir(), FLAGS.split, FLAGS.config)


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and turn a user's mistake into one sentence and exit code 2."""
    warnings.showwarning = _show_warning
    try:
        if "config" not in FLAGS:
            define_flags()
        rest = configs.parse_flags(argv or sys.argv)
        if len(rest) > 1:
            raise UserError(f"Only flags are expected, but {rest[1]!r} is none: see --help.")
        return run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _recipe() -> configs.ConfigDict:
    if FLAGS.config is None:
        raise UserError("A recipe is expected: give one, as --config configs/worlds.py.")
    return FLAGS.config


def _workdir() -> Path:
    if FLAGS.workdir:
        return Path(FLAGS.workdir)
    config = _recipe()
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
