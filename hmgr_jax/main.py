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
import difflib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ml_collections import ConfigDict

from hmgr_jax.errors import UserError
from hmgr_jax.training import recipe_file

MODES = ("train", "evaluate", "encode", "show")
SPLITS = ("train", "dev", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn a user's mistake into one sentence on stderr and exit code 2."""
    arguments = list(sys.argv if argv is None else argv)[1:]
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return run(arguments)
        except UserError as error:
            return _fail(str(error))
        except OSError as error:
            what = error.filename or "something that this needs"
            return _fail(
                f"The system refused {what} ({error.strerror or error}): look at the path, its "
                "permissions and the room on the disk."
            )
        except KeyboardInterrupt:
            _fail("Stopped by Ctrl-C: the same command goes on from the newest checkpoint, if any.")
            return 130


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    overrides, others = recipe_file.split_overrides(arguments)
    flags = _parse(others)
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[:1].upper()}{message[1:]}; --help shows the command line.")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags that are no values of a recipe."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--mode", choices=MODES, default="train")
    parser.add_argument("--workdir")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--seeds")
    parser.add_argument("-h", "--help", action="store_true")
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        given = unknown[0].partition("=")[0]
        known = [f"--{name}" for name in vars(flags)]
        close = difflib.get_close_matches(given, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}."
        raise UserError(f"There is no flag {given!r}; {hint}")
    return flags


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


def _fail(sentence: str) -> int:
    print("error: " + sentence.replace("\n", " "), file=sys.stderr, flush=True)
    return 2


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
