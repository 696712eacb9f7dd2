"""A memory of instances: a ring of training pairs, looked up in one modality, read in the other.

The ring holds S pairs of unit vectors (v_s, t_s) that stay apart and are linked by their slot. An
item x of one modality finds the slots whose vectors of its own modality are like it, and reads the
vectors of the other modality there:

    a = softmax over the top k slots of (x·own_s / τ),   r = Σ_s a_s other_s

The ring is state, not parameters: a training step writes its batch at the ring's head. No gradient
flows into the stored vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Bool, Float, Int

EMPTY = -1
"""The group of a slot that was never written; the slot of a weight that reads nothing."""
FAR = -1e9
"""The cosine of a slot that may not be read."""


@struct.dataclass
class Bank:
    """S stored pairs, float32 in every compute type."""

    vectors: dict[str, Float[Array, "S D"]]
    """{modality: unit vectors}; a slot holds the two sides of one pair."""
    group: Int[Array, " S"]
    """The picture of the pair; `EMPTY` where nothing was written."""
    step: Int[Array, " S"]
    """The training step that wrote the slot."""
    head: Int[Array, ""]
    """The slot that is written next."""
    read: Bool[Array, " S"]
    """Whether any item has read the slot in training."""


class Reading(NamedTuple):
    """What n items read."""

    content: Float[Array, "n D"]
    """r, in the other modality; 0 if no slot may be read."""
    weights: Float[Array, "n k"]
    """a, which sums to 1, largest first."""
    slots: Int[Array, "n k"]
    """The slots of the weights; `EMPTY` where fewer than k slots may be read."""


def empty_bank(modalities: Sequence[str], slots: int, features: int) -> Bank:
    """A ring in which nothing is written."""
    return Bank(
        {m: jnp.zeros((slots, features), jnp.float32) for m in modalities},
        jnp.full((slots,), EMPTY, jnp.int32),
        jnp.full((slots,), -1, jnp.int32),
        jnp.zeros((), jnp.int32),
        jnp.zeros((slots,), bool),
    )


def write(
    bank: Bank,
    pairs: Mapping[str, Float[Array, "B D"]],
    group: Int[Array, " B"],
    valid: Bool[Array, " B"],
    step: Int[Array, ""],
) -> Bank:
    """Write the valid pairs of a global batch at the ring's head, over the oldest ones.

    The result depends on the order of the batch's rows only, so it is the same on all devices.
    A batch of more than S pairs keeps its last S.
    """
    size, rank = len(bank.group), jnp.cumsum(valid) - 1
    count = jnp.sum(valid, dtype=jnp.int32)
    kept = valid & (rank >= count - size)
    place = jnp.where(kept, (bank.head + rank) % size, size)  # beyond the end: dropped

    def put(old: Array, new: Array) -> Array:
        return old.at[place].set(new.astype(old.dtype), mode="drop")

    return Bank(
        {m: put(bank.vectors[m], pairs[m]) for m in bank.vectors},
        put(bank.group, group),
        put(bank.step, jnp.broadcast_to(step, group.shape)),
        (bank.head + count) % size,
        put(bank.read, jnp.zeros(group.shape, bool)),
    )


def read(
    bank: Bank,
    x: Float[Array, "n D"],
    modality: str,
    *,
    top: int,
    temperature: float | Float[Array, ""],
    not_from: Int[Array, " n"] | None = None,
) -> Reading:
    """Read the bank with unit vectors of ``modality``.

    Args:
        bank: the stored pairs.
        x: the items.
        modality: theirs.
        top: k, the number of slots that an item reads; all S if there are fewer.
        temperature: τ.
        not_from: the group of each item, whose slots it does not read (in training).
    """
    (other,) = (m for m in bank.vectors if m != modality)
    readable = jnp.broadcast_to(bank.group != EMPTY, (len(x), len(bank.group)))
    if not_from is not None:
        readable &= bank.group[None, :] != not_from[:, None]
    cosines = einsum("nd,sd->ns", x.astype(jnp.float32), bank.vectors[modality])
    best, slots = jax.lax.top_k(jnp.where(readable, cosines, FAR), min(top, len(bank.group)))
    found = best > FAR / 2
    weights = jnp.where(found, jax.nn.softmax(best / temperature, axis=-1), 0.0)
    content = einsum("nk,nkd->nd", weights, bank.vectors[other][slots])
    return Reading(content, weights, jnp.where(found, slots, EMPTY))


def mark_read(bank: Bank, slots: Int[Array, "B k"], valid: Bool[Array, " B"]) -> Bank:
    """Note that the valid items of a global batch have read ``slots``."""
    place = jnp.where(valid[:, None] & (slots != EMPTY), slots, len(bank.group)).reshape(-1)
    return bank.replace(  # type: ignore[attr-defined]
        read=bank.read.at[place].set(True, mode="drop")
    )


def reading_report(reading: Reading, before: Array, after: Array) -> dict[str, Float[Array, " n"]]:
    """What tells use from idleness, for each of n items.

    Returns:
        ``entropy`` of an item's own weights in nats, ``top1`` its largest weight, ``moved`` the
        cosine distance between the item before and after reading.
    """
    a = reading.weights
    return {
        "entropy": -jnp.sum(a * jnp.log(jnp.maximum(a, 1e-12)), axis=1),
        "top1": a[:, 0],
        "moved": 1.0 - jnp.sum(before * after, axis=1),
    }
