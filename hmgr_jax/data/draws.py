"""Random streams of training examples, keyed by seed, purpose, step and row only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PICTURES, CAPTIONS = 2, 3  # purposes; 0, 1 and 4 are those of `hmgr_jax.data.order`
VIEWS, POINTS, FACES = 5, 6, 7


class Draws(NamedTuple):
    """Keys of the random streams of rows of a batch.

    ``rows`` are positions in the GLOBAL batch: a row has the same stream in every process and
    worker, and after a resume.
    """

    seed: int
    step: int
    rows: np.ndarray
    """int [k]."""

    def generator(self, purpose: int, k: int) -> np.random.Generator:
        """Return the stream of the k-th of the rows for a purpose."""
        return np.random.default_rng([self.seed, purpose, self.step, int(self.rows[k])])
