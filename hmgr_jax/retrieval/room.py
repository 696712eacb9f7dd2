"""Whether a score matrix fits into the memory of this machine, asked before it is begun."""

from __future__ import annotations

import os
from pathlib import Path

from hmgr_jax.errors import UserError


def demand_room(n_a: int, n_b: int, *, matrices: int = 1) -> None:
    """Refuse float32 scores [n_a, n_b], held ``matrices`` times, that do not fit into memory.

    Passes where the free memory cannot be known.

    Raises:
        UserError: how much is needed and how much there is.
    """
    needed, free = 4 * n_a * n_b * matrices, free_memory_bytes()
    if free is not None and needed > free:
        raise UserError(
            f"The scores of {n_a:,} items with {n_b:,} items take {needed / 1e9:,.1f} GB, but "
            f"{free / 1e9:,.1f} GB of memory are free: evaluate a smaller split, or use a machine "
            "with more memory."
        )


def free_memory_bytes() -> int | None:
    """Memory that this machine could still give, or all that it has; None if it does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
