"""Random numbers of training examples: by seed, purpose, step and row, and by nothing else."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PICTURES, CAPTIONS = 2, 3  # purposes; 0, 1 and 4 are those of `hmgr_jax.data.order`
VIEWS, POINTS, FACES = 5, 6, 7


class Draws(NamedTuple):
    """What the random numbers of some rows of a batch depend on.

    ``rows`` are positions in the GLOBAL batch, so that a row has the same numbers whatever process
    or worker reads it, and after a resume.
    """

    seed: int
    step: int
    rows: np.ndarray
    """int [k]."""

    def generator(self, purpose: int, k: int) -> np.random.Generator:
        """The stream of the k-th of the rows for a purpose."""
        return np.random.default_rng([self.seed, purpose, self.step, int(self.rows[k])])
