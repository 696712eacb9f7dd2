"""The joint heterogeneous memory of HMGR: S slots [D], read in hops, written in closed form.

For a unit vector x of modality m (docs/models/hmgr.md has all equations):

    read    a = softmax(x W_q^m (M W_k)^T / √d_k),  r = a M
    hop     h <- g ⊙ h + (1 - g) ⊙ o,  g = σ([h; r] W_g^m + b),  o = tanh([h; r] W_o^m + b)
    write   M_s <- (1 - w_s^v - w_s^t) M_s + w_s^v c^v + w_s^t c^t,  w_s^m = η ε_m a_s^m

The slots are state, not parameters: they are arguments and results of every function. The maps are
learned. They are separate for each modality (heterogeneous), except for the keys and the write gate
ε.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from hmgr_jax.layers.linear import Linear, einsum
from hmgr_jax.layers.masking import l2n
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

WRITE_RULES = ("slotwise", "hme")
WRITE_ADDRESSES = ("learned", "content")


@struct.dataclass
class MemoryState:
    """The contents of the memory, float32 in every compute type."""

    slots: Float[Array, "M S D"] | None
    """M = 1: one memory for both modalities; M = 2: one each. None: the slots are parameters."""
    written: Int[Array, ""]
    """Number of instances written so far."""
    active: Bool[Array, ""]
    """Whether the memory is read (after the warm-up), in training and at inference."""


def initial_slots(key: Array, memories: int, slots: int, features: int) -> Float[Array, "M S D"]:
    """Random unit rows, since equal slots would stay equal under content addressing."""
    return l2n(jax.random.normal(key, (memories, slots, features), jnp.float32))


class MemoryAccess(nn.Module):
    """The learned maps: queries, hops, write contents, write addresses and the write gate.

    Queries and slot keys have ``key_features`` dimensions; hops share their weights.
    ``write_address`` is ``"learned"``, or ``"content"`` to write where the instance last read.
    ``gain`` multiplies the inputs of the address maps. At 1 the logits of unit vectors have a
    standard deviation of 1 / D, so a new memory is read and written almost uniformly; at √D the
    logits are of order one.
    """

    features: int
    slots: int
    modalities: tuple[str, str]
    key_features: int = 256
    hops: int = 2
    write_address: str = "learned"
    gain: float = 1.0
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Declare the maps, most of them once for each modality."""

        def linear(features: int, use_bias: bool = True, bias: float = 0.0) -> Linear:
            init = nn.initializers.constant(bias)
            return Linear(features, use_bias=use_bias, dtype=self.dtype, bias_init=init)

        self.key = linear(self.key_features, use_bias=False)
        self.query = {m: linear(self.key_features, use_bias=False) for m in self.modalities}
        # The hop gate starts near "keep", so a new memory changes vectors only slightly.
        self.hop_gate = {m: linear(self.features, bias=2.0) for m in self.modalities}
        self.hop_content = {m: linear(self.features) for m in self.modalities}
        self.write_content = {m: linear(self.features) for m in self.modalities}
        if self.write_address == "learned":
            self.write_place = {m: linear(self.slots) for m in self.modalities}
        self.write_gate = linear(3)

    def read(
        self, slots: Float[Array, "S D"], x: Float[Array, "n D"], modality: str
    ) -> tuple[Float[Array, "n D"], Float[Array, "n D"], Float[Array, "n S"]]:
        """Read ``slots`` with the unit vectors ``x`` as queries.

        Returns:
            the unit vectors after the last hop, the content that the last hop read, and its
            address.
        """
        keys = self.key(self.gain * slots)
        h, read = x, x
        address = jnp.zeros((x.shape[0], self.slots), jnp.float32)
        for _ in range(self.hops):
            query = self.query[modality](self.gain * h)
            logits = einsum("nk,sk->ns", query, keys) / self.key_features**0.5
            address = jax.nn.softmax(logits, axis=-1)
            read = einsum("ns,sd->nd", address, slots)
            both = jnp.concatenate([h, read], axis=-1)
            g = jax.nn.sigmoid(self.hop_gate[modality](both))
            h = g * h + (1.0 - g) * jnp.tanh(self.hop_content[modality](both))
        return l2n(h), read, address

    def content(
        self, x: Float[Array, "n D"], read: Float[Array, "n D"], address: Array, modality: str
    ) -> tuple[Float[Array, "n D"], Float[Array, "n S"]]:
        """The content and the address that an instance of ``modality`` writes."""
        both = jnp.concatenate([x, read], axis=-1)
        content = jnp.tanh(self.write_content[modality](both))
        if self.write_address == "learned":
            address = jax.nn.softmax(self.write_place[modality](self.gain * both), axis=-1)
        return content, address

    def gate(
        self, a: Float[Array, "n D"], b: Float[Array, "n D"], read: Float[Array, "n D"]
    ) -> Float[Array, "n 3"]:
        """Probabilities of (keep, write the first modality, write the second) for every pair."""
        return jax.nn.softmax(self.write_gate(jnp.concatenate([a, b, read], axis=-1)), axis=-1)

    def touch(self, slots: Float[Array, "S D"]) -> None:
        """Call every method once, so that ``init`` creates all parameters."""
        x = jnp.ones((1, self.features), jnp.float32)
        for modality in self.modalities:
            _, read, address = self.read(slots, x, modality)
            self.content(x, read, address, modality)
        self.gate(x, x, x)


def write(
    slots: Float[Array, "S D"],
    keep: Float[Array, "n S"],
    weights: tuple[Float[Array, "n S"], ...],
    contents: tuple[Float[Array, "n D"], ...],
) -> Float[Array, "S D"]:
    """Write n instances in sequence, in closed form.

    Equal to ``for i: M_s <- keep[i, s] M_s + Σ_m weights[m][i, s] contents[m][i]``: the content of
    an instance is multiplied by the keep factors of all later instances.
    """
    # A keep factor that rounds to 0 or below would give inf - inf.
    log_keep = jnp.log(jnp.maximum(keep, 1e-30))
    later = jnp.exp(jax.lax.cumsum(log_keep, axis=0, reverse=True) - log_keep)
    out = jnp.exp(jnp.sum(log_keep, axis=0))[:, None] * slots
    for w, c in zip(weights, contents, strict=True):
        out = out + einsum("ns,nd->sd", later * w, c)
    return out


def write_shares(
    gate: Float[Array, "n 3"],
    addresses: tuple[Float[Array, "n S"], Float[Array, "n S"]],
    valid: Bool[Array, " n"],
    rate: float,
    rule: str,
    streams: tuple[bool, bool],
) -> tuple[Float[Array, "n S"], tuple[Float[Array, "n S"], Float[Array, "n S"]]]:
    """(keep, write weights) of every instance and slot under a write rule.

    ``"slotwise"`` moves each slot by at most ``rate`` (η), so that it stays in the convex hull of
    its contents; ``"hme"`` is the rule of HME (Fan et al., CVPR 2019), in which every instance
    decays every slot. ``streams`` are the modalities that write; an invalid row changes nothing.
    """
    strength = rate if rule == "slotwise" else 1.0
    first, second = (
        jnp.where(valid[:, None], strength * gate[:, m + 1, None] * addresses[m], 0.0)
        if streams[m]
        else jnp.zeros_like(addresses[m])
        for m in (0, 1)
    )
    if rule == "slotwise":
        keep = 1.0 - first - second
    else:
        keep = jnp.where(valid[:, None], jnp.broadcast_to(gate[:, :1], first.shape), 1.0)
    return keep, (first, second)


@dataclass(frozen=True)
class GroupedMemory:
    """A memory that the groups of a batch read and then write in turn, on all devices.

    A row belongs to group (global row number) mod ``groups``. Group κ reads the slots that groups 0
    to κ - 1 have written, so the write maps receive gradients from the reads of later groups; with
    one group they receive none. Each device reads for its own rows; contents, addresses and gates
    are gathered, so that the slots are bit-identical on all devices.
    """

    access: MemoryAccess
    params: Tree
    groups: int = 8
    rate: float = 0.1
    rule: str = "slotwise"
    streams: tuple[bool, bool] = (True, True)
    """The modalities that write."""
    writes: bool = True

    def read(
        self, slots: Float[Array, "M S D"], x: Float[Array, "n D"], modality: str
    ) -> tuple[Float[Array, "n D"], Float[Array, "n D"], Float[Array, "n S"]]:
        """``MemoryAccess.read`` of the modality's own memory, or of the shared one."""
        own = self.access.modalities.index(modality) if len(slots) > 1 else 0
        return self._apply("read", slots[own], x, modality)

    def read_then_write(
        self,
        slots: Float[Array, "M S D"],
        codes: Mapping[str, Float[Array, "b D"]],
        valid: Bool[Array, " b"],
        axis: Any,
    ) -> tuple[dict[str, Float[Array, "b D"]], Float[Array, "M S D"], Float[Array, "2 S"]]:
        """Read and write all groups of the local rows ``codes``; ``axis`` is the model's `Axis`.

        Returns:
            the local codes after the memory, the slots after the batch, and the mean read address
            of each modality over all devices (sums to 1 over slots).
        """
        rows = valid.shape[0]
        first = axis.index() * rows
        spread = jnp.arange(-(-rows // self.groups)) * self.groups

        def visit(slots: Array, group: Array) -> tuple[Array, tuple[dict[str, Array], Array]]:
            place = (group - first) % self.groups + spread
            counts = place < rows
            place = jnp.minimum(place, rows - 1)
            counts = counts & valid[place]
            x = {m: codes[m][place] for m in self.access.modalities}
            reads = {m: self.read(slots, x[m], m) for m in x}
            hats = {m: hat for m, (hat, _, _) in reads.items()}
            at = jnp.stack([at for _, _, at in reads.values()])
            used = jnp.sum(jnp.where(counts[None, :, None], at, 0.0), axis=1)
            if self.writes:
                slots = self._write(slots, x, reads, counts, axis)
            return slots, (hats, used)

        slots, (hats, used) = jax.lax.scan(visit, slots, jnp.arange(self.groups))
        # Row i was visited in group (first + i) mod groups, as number i // groups of its device.
        i: Int[Array, " b"] = jnp.arange(rows)
        order = ((first + i) % self.groups, i // self.groups)
        use = axis.sum(jnp.sum(used, axis=0))
        use = use / jnp.maximum(jnp.sum(use, axis=1, keepdims=True), 1e-12)
        return {m: x[order] for m, x in hats.items()}, slots, use

    def rewrite(
        self,
        slots: Float[Array, "M S D"],
        codes: Mapping[str, Float[Array, "n D"]],
        batch: int,
        axis: Any,
    ) -> Float[Array, "M S D"]:
        """The slots after all pairs of ``codes`` are written, ``batch`` pairs at a time."""
        pairs = next(iter(codes.values())).shape[0]
        batches = -(-pairs // batch)
        missing = batches * batch - pairs

        def cut(x: Array) -> Array:
            return jnp.pad(x, ((0, missing), (0, 0))).reshape(batches, batch, -1)

        valid = (jnp.arange(batches * batch) < pairs).reshape(batches, batch)

        def write_batch(
            slots: Array, given: tuple[Mapping[str, Array], Array]
        ) -> tuple[Array, None]:
            _, slots, _ = self.read_then_write(slots, *given, axis)
            return slots, None

        return jax.lax.scan(write_batch, slots, ({m: cut(x) for m, x in codes.items()}, valid))[0]

    def _write(
        self,
        slots: Array,
        x: Mapping[str, Array],
        reads: Mapping[str, tuple[Array, Array, Array]],
        valid: Array,
        axis: Any,
    ) -> Array:
        """The slots after one group of all devices has written."""
        a, b = self.access.modalities
        written = [self._apply("content", x[m], reads[m][1], reads[m][2], m) for m in (a, b)]
        gate = self._apply("gate", x[a], x[b], (reads[a][1] + reads[b][1]) / 2)
        pairs, gate, valid = axis.gather((written, gate, valid))
        contents, addresses = zip(*pairs, strict=True)
        first, second = self.streams
        each = [self.streams] if len(slots) == 1 else [(first, False), (False, second)]
        out = []
        for memory, streams in zip(slots, each, strict=True):
            keep, weights = write_shares(gate, addresses, valid, self.rate, self.rule, streams)
            out.append(write(memory, keep, weights, contents))
        return jnp.stack(out)

    def _apply(self, method: str, *arguments: Any) -> Any:
        return self.access.apply({"params": self.params}, *arguments, method=method)
