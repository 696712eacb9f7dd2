"""The state of training: everything that a step takes and returns, and that a checkpoint holds."""

from __future__ import annotations

from flax import struct

from hmgr_jax.models.base import Variables
from hmgr_jax.shapes import Array, Int, Tree


@struct.dataclass
class State:
    """Parameters, statistics, memory, optimiser, seed, step and the counters of bad steps."""

    step: Int[Array, ""]
    seed: Int[Array, ""]
    params: Tree
    stats: Tree
    memory: Tree
    optimizer: Tree
    bad_in_a_row: Int[Array, ""]
    """Steps in a row whose loss or gradient was not finite; they changed nothing else."""
    bad_total: Int[Array, ""]

    def variables(self, tables: Tree) -> Variables:
        """What a model computes with."""
        return Variables(self.params, self.stats, self.memory, tables)
