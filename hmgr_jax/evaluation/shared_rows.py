"""A score matrix of several processes: each scores its own rows, then all have all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from hmgr_jax.distributed import hosts
from hmgr_jax.evaluation.tiles import Bucket, Codes, as_buckets, n_items


def in_shares(
    score: Callable[[list[Bucket]], np.ndarray], codes: Codes | Sequence[Bucket], columns: int
) -> np.ndarray:
    """Float32 [rows, columns]: ``score`` of this process's rows, put together with the others'.

    Args:
        score: of buckets that hold some of the rows, renumbered from 0, to [those rows, columns].
        codes: of all rows, the same in every process.
        columns: how many.
    """
    buckets = as_buckets(codes)
    index, count = hosts.share()
    rows = n_items(buckets)
    size = -(-rows // count)
    own = _between(buckets, index * size, (index + 1) * size)
    scores = np.zeros((size, columns), np.float32)
    if own:
        found = score(own)
        scores[: len(found)] = found
    return hosts.exchange(scores)[:rows]


def _between(buckets: Sequence[Bucket], start: int, stop: int) -> list[Bucket]:
    """The items from ``start`` to ``stop`` - 1, numbered from 0; buckets without any left out."""
    found = []
    for bucket in buckets:
        inside = (bucket.items >= start) & (bucket.items < stop)
        if inside.any():
            codes = jax.tree.map(lambda leaf, keep=inside: leaf[keep], bucket.codes)
            found.append(Bucket(bucket.items[inside] - start, codes))
    return found
