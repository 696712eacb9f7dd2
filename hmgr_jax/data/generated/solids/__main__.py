"""Write generated solids as OFF files: ``python -m hmgr_jax.data.generated.solids --out DIR``.

Options: ``--seed 0``, and the size of each split, ``--train 1200 --test 480``. The folders are
    those of ModelNet, which ``python -m hmgr_jax.prepare modelnet --source DIR`` reads.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.command import Parser, guarded
from hmgr_jax.data.generated.solids import CLASSES, make_solid
from hmgr_jax.data.shapes3d.mesh import transform
from hmgr_jax.data.shapes3d.off import write_off
from hmgr_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a user's mistake."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Parse the command line and write the files; ``UserError`` for invalid options."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=1200)
    parser.add_argument("--test", type=int, default=480)
    options = parser.parse(arguments)
    if options.out is None:
        raise UserError("--out is missing: give the folder to write, as --out DIR.")
    if min(options.seed, options.train, options.test) < 0:
        raise UserError("--seed, --train and --test must be 0 or more: correct them.")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"{options.out} exists already: give another folder, or move it away.")
    count = write_tree(options.out, seed=options.seed, train=options.train, test=options.test)
    print(f"{options.out}: {count:,} files")
    return 0


UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""From y up to z up, as in ModelNet."""


def write_tree(folder: Path, *, seed: int, train: int, test: int) -> int:
    """Write solids as ``class/train/class_000012.off`` and so on; returns the number of files."""
    for split, count in (("train", train), ("test", test)):
        for index in range(count):
            solid = make_solid(seed, split, index)
            path = folder / CLASSES[solid.kind] / split / f"{solid.name}.off"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_off(path, transform(solid.mesh, UPRIGHT))
    return train + test


if __name__ == "__main__":
    sys.exit(main())
