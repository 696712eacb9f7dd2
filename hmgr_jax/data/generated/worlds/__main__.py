"""Write a contact sheet of generated worlds: ``python -m hmgr_jax.data.generated.worlds --out sheet.png``.

Options: ``--clips`` for clips instead of scenes, ``--seed 0``, ``--split train|dev|test``, and
``--families 3``: a family is a row of the sheet, one of clips is four.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hmgr_jax.command import Parser, guarded
from hmgr_jax.data.generated.worlds.clip_sheet import draw_clip_sheet
from hmgr_jax.data.generated.worlds.scene import SIBLINGS
from hmgr_jax.data.generated.worlds.sheet import draw_sheet
from hmgr_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a user's mistake."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Parse the command line and write the sheet; raises ``UserError`` for what cannot be done."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clips", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "dev", "test"), default="train")
    parser.add_argument("--families", type=int, default=3)
    options = parser.parse(arguments)
    if options.out is None:
        raise UserError("--out is missing: give the PNG file to write, as --out sheet.png.")
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
    draw = draw_clip_sheet if options.clips else draw_sheet
    draw(options.out, seed=options.seed, split=options.split, families=options.families)
    count, what = options.families * SIBLINGS, "clips" if options.clips else "scenes"
    print(f"{options.out}: {count} {what} of {options.families} families")
    return 0


if __name__ == "__main__":
    sys.exit(main())
