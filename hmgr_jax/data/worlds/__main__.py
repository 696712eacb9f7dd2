"""Write a contact sheet of generated worlds: ``python -m hmgr_jax.data.worlds --out sheet.png``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hmgr_jax.data.worlds.scene import SIBLINGS
from hmgr_jax.data.worlds.sheet import draw_sheet
from hmgr_jax.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the sheet; raises ``UserError`` for what cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m hmgr_jax.data.worlds", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train", help="train, dev or test")
    parser.add_argument("--families", type=int, default=3, help="rows of the sheet")
    options = parser.parse_args(arguments)
    if options.seed < 0 or options.families < 1:
        raise UserError(
            f"--seed must be 0 or more and --families 1 or more, they are {options.seed} and "
            f"{options.families}: change them."
        )
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out must name a PNG file, it is {options.out}: end it in .png.")
    if options.out.exists():
        raise UserError(f"{options.out} exists already: give another name, or move it away.")
    if not options.out.parent.is_dir():
        raise UserError(f"{options.out.parent} is not a folder: make it, or give another path.")
    draw_sheet(options.out, seed=options.seed, split=options.split, families=options.families)
    count = options.families * SIBLINGS
    print(f"{options.out}: {count} scenes of {options.families} families")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
