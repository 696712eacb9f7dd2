"""Whether codes and scores fit into the memory of this machine, asked before they are begun."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hmgr_jax.data.split import Source
from hmgr_jax.errors import UserError
from hmgr_jax.models.base import Feature


def demand_room(n_a: int, n_b: int, *, matrices: int = 1, codes: int = 0) -> None:
    """Refuse float32 scores [n_a, n_b], held ``matrices`` times, that do not fit into memory.

    ``codes`` are the bytes of codes that are held beside them and not in memory yet. Passes where
    the free memory cannot be known.

    Raises:
        UserError: how much is needed and how much there is.
    """
    scores, free = 4 * n_a * n_b * matrices, free_memory_bytes()
    if free is not None and scores + codes > free:
        and_codes = f" and the codes of all items {codes / 1e9:,.1f} GB" if codes else ""
        raise UserError(
            f"The scores of {n_a:,} items with {n_b:,} items take {scores / 1e9:,.1f} GB"
            f"{and_codes}, but {free / 1e9:,.1f} GB of memory are free: evaluate a smaller split, "
            "or use a machine with more memory."
        )


def code_bytes(
    encode: Any,
    variables: Any,
    features: Mapping[str, Feature],
    source: Source,
    buckets: Sequence[int],
) -> int:
    """Bytes of the codes of all items of ``source``, each padded to its bucket.

    Args:
        encode: a function (variables, items, numbers) of ``jax.jit``; it is not computed.
        variables: arrays, or their shapes.
        features: inputs of an item.
        source: as many items, of such lengths.
        buckets: padded lengths.
    """
    padded = np.asarray(sorted(buckets))
    lengths = np.full(len(source), padded[-1]) if source.lengths is None else source.lengths
    of_item = padded[np.minimum(np.searchsorted(padded, lengths), len(padded) - 1)]
    number, total = jax.ShapeDtypeStruct((1,), np.int32), 0
    for length, count in zip(*np.unique(of_item, return_counts=True), strict=True):
        items = {name: _one(feature, int(length)) for name, feature in features.items()}
        codes = jax.tree.leaves(encode.eval_shape(variables, items, number))
        total += int(count) * sum(leaf.size * leaf.dtype.itemsize for leaf in codes)
    return total


def _one(feature: Feature, length: int) -> jax.ShapeDtypeStruct:
    shape = (length if n is None else n for n in feature.shape)
    return jax.ShapeDtypeStruct((1, *shape), feature.dtype)


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
