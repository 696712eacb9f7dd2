"""Measure how a training step scales over devices and processes: rows, a table and a picture.

    python launch/scaling.py --model hmgr --batch 128 --dim 1024 --devices 1,2,4,8

``--help`` lists all options. It needs jax, flax, optax and numpy, rich for the table and matplotlib
for the picture; the package need not be installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scaling.command import main

if __name__ == "__main__":
    sys.exit(main())
