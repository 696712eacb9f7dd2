"""The training state: input and output of a step, and content of a checkpoint."""

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
    """Consecutive steps whose update was discarded because it was not finite."""
    bad_total: Int[Array, ""]

    def variables(self, tables: Tree) -> Variables:
        """The variables of the model, with ``tables``."""
        return Variables(self.params, self.stats, self.memory, tables)
