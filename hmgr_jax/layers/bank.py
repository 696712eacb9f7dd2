"""A memory of instances: a ring of training pairs, looked up in one modality, read in the other.

The ring holds S pairs of unit vectors (v_s, t_s) that stay apart and are linked by their slot. An
item x of one modality finds the slots whose vectors of its own modality are like it, and reads the
vectors of the other modality there:

    a = softmax over the top k slots of (x·own_s / τ),   r = Σ_s a_s other_s

The ring is state, not parameters: a training step writes its batch at the ring's head. No gradient
flows into the stored vectors.

A ring of many slots is split over n devices: device d holds the slots from d S/n to (d + 1) S/n.
The functions below then run on each device with its part of the bank and with ``axis``, the model's
``Axis``; without one, the whole bank is here. Slots are numbered over all devices. The top k of the
ring are the top k of the devices' top k, and r is the sum of what the devices hold of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

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
    axis: Any = None,
) -> Bank:
    """Write the valid pairs of a global batch at the ring's head, over the oldest ones.

    The result depends on the order of the batch's rows only, so it is the same on all devices.
    A batch of more than S pairs keeps its last S.
    """
    size, rank = len(bank.group) * (axis.size if axis else 1), jnp.cumsum(valid) - 1
    count = jnp.sum(valid, dtype=jnp.int32)
    kept = valid & (rank >= count - size)
    place = _places(bank, jnp.where(kept, (bank.head + rank) % size, EMPTY), axis)

    def put(old: Array, new: Array) -> Array:
        return old.at[place].set(new.astype(old.dtype), mode="drop")

    return Bank(
        {m: put(bank.vectors[m], pairs[m]) for m in bank.vectors},
        put(bank.group, group),
        put(bank.step, jnp.broadcast_to(step, group.shape)),
        (bank.head + count) % size,
        put(bank.read, jnp.zeros(group.shape, bool)),
    )


def stored(like: Bank, pairs: Mapping[str, Float[np.ndarray, "N D"]], group: np.ndarray) -> Bank:
    """A bank of only these N <= S pairs, of the size and on the devices of ``like``.

    Each array is made on the host, since a device may be too small for it.
    """
    count, size = len(group), len(like.group)

    def filled(old: Array, empty: Any, rows: Any) -> Array:
        found = np.full(old.shape, empty, old.dtype)
        found[:count] = rows
        return jax.device_put(found, old.sharding)

    return Bank(
        {m: filled(old, 0, pairs[m]) for m, old in like.vectors.items()},
        filled(like.group, EMPTY, group),
        filled(like.step, -1, int(jnp.max(like.step)) + 1),
        jax.device_put(np.int32(count % size), like.head.sharding),
        filled(like.read, False, False),
    )


def read(
    bank: Bank,
    x: Float[Array, "n D"],
    modality: str,
    *,
    top: int,
    temperature: float | Float[Array, ""],
    not_from: Int[Array, " n"] | None = None,
    axis: Any = None,
) -> Reading:
    """Read the bank with unit vectors of ``modality``.

    Args:
        bank: the stored pairs.
        x: the items.
        modality: theirs.
        top: k, the number of slots that an item reads; all S if there are fewer.
        temperature: τ.
        not_from: the group of each item, whose slots it does not read (in training).
        axis: the devices that the bank is split over; each reads with as many items of its own.
    """
    (other,) = (m for m in bank.vectors if m != modality)
    x = x.astype(jnp.float32)
    slots = _nearest(bank, jax.lax.stop_gradient(x), modality, top, not_from, axis)

    def vectors(m: str, slots: Int[Array, "n k"]) -> Float[Array, "n k D"]:
        places = _places(bank, slots, axis)
        return bank.vectors[m].at[places].get(mode="fill", fill_value=0.0)

    def look(x: Array, slots: Array) -> Float[Array, "n k"]:
        return einsum("nd,nkd->nk", x, vectors(modality, slots))

    def fetch(weights: Array, slots: Array) -> Float[Array, "n D"]:
        return einsum("nk,nkd->nd", weights, vectors(other, slots))

    found = slots != EMPTY
    cosines = jnp.where(found, _over_parts(look, (x, slots), axis), FAR)
    weights = jnp.where(found, jax.nn.softmax(cosines / temperature, axis=-1), 0.0)
    return Reading(_over_parts(fetch, (weights, slots), axis), weights, slots)


def _nearest(
    bank: Bank, x: Array, modality: str, top: int, not_from: Array | None, axis: Any
) -> Int[Array, "n k"]:
    """The k slots nearest to each item, nearest first; `EMPTY` where fewer may be read."""
    size = len(bank.group)

    def in_own_part(x: Array, not_from: Array | None) -> Tree:
        readable = jnp.broadcast_to(bank.group != EMPTY, (len(x), size))
        if not_from is not None:
            readable &= bank.group[None, :] != not_from[:, None]
        cosines = einsum("nd,sd->ns", x, bank.vectors[modality])
        return jax.lax.top_k(jnp.where(readable, cosines, FAR), min(top, size))

    if axis is None:
        best, slots = in_own_part(x, not_from)
    else:
        best, slots = _for_each_device(in_own_part, (x, not_from), axis)
        best, slots = axis.exchange((best, slots + axis.index() * size))  # [devices, n, k]
        best, slots = (jnp.swapaxes(part, 0, 1).reshape(len(x), -1) for part in (best, slots))
        best, order = jax.lax.top_k(best, min(top, best.shape[1]))
        slots = jnp.take_along_axis(slots, order, axis=1)
    return jnp.where(best > FAR / 2, slots, EMPTY)


def _over_parts(function: Callable[..., Array], rows: Tree, axis: Any) -> Array:
    """``function`` of this device's rows, summed over all parts of the bank."""
    if axis is None:
        return function(*rows)
    return axis.sum_of_rows(_for_each_device(jax.checkpoint(function), rows, axis))


def _for_each_device(function: Callable[..., Tree], rows: Tree, axis: Any) -> Tree:
    """``function`` of the rows [n, ...] of one device after the other: [devices, n, ...].

    One device's rows at a time bound the memory that their cosines with this part need.
    """
    every = jax.tree.map(lambda x: axis.gather(x).reshape(axis.size, *x.shape), rows)
    return jax.lax.map(lambda of_one: function(*of_one), every)


def _places(bank: Bank, slots: Int[Array, "..."], axis: Any) -> Int[Array, "..."]:
    """Places of ``slots`` in this part of the bank; beyond its end for all others and `EMPTY`."""
    size = len(bank.group)
    places = slots - axis.index() * size if axis else slots
    return jnp.where((slots != EMPTY) & (places >= 0) & (places < size), places, size)


def mark_read(
    bank: Bank, slots: Int[Array, "B k"], valid: Bool[Array, " B"], axis: Any = None
) -> Bank:
    """Note that the valid items of a global batch have read ``slots``."""
    place = _places(bank, jnp.where(valid[:, None], slots, EMPTY), axis).reshape(-1)
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
