"""The joint heterogeneous memory of HMGR: read in hops, written in closed form (spec 3.4, 3.5).

The contents are state, not parameters: they go in and come out of every function here. How to
read and write is learned, with weights of its own for each modality (heterogeneous).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from hmgr_jax.layers.linear import Linear, einsum
from hmgr_jax.layers.masking import l2n
from hmgr_jax.shapes import Array, Bool, Float, Int

WRITE_RULES = ("slotwise", "hme")
WRITE_ADDRESSES = ("learned", "content")


@struct.dataclass
class MemoryState:
    """Contents of the memory, float32 whatever the compute type."""

    slots: Float[Array, "M S D"] | None
    """M is 1 for a memory that both modalities share, 2 for one each; None: they are parameters."""
    written: Int[Array, ""]
    """How many instances have been written."""
    active: Bool[Array, ""]
    """Whether reading has begun (after the warm-up), in training and at inference alike."""


def initial_slots(key: Array, memories: int, slots: int, features: int) -> Float[Array, "M S D"]:
    """Random unit rows. Never zeros: equal slots would stay equal under content addressing."""
    return l2n(jax.random.normal(key, (memories, slots, features), jnp.float32))


class MemoryAccess(nn.Module):
    """The learned part: queries, hops, contents, addresses and the write gate.

    Queries and slot keys have ``key_features`` dimensions; hops share their weights.
    ``write_address`` is ``"learned"``, or ``"content"`` to write where the instance last read.
    ``gain`` multiplies whatever enters the maps of an address. At 1, as specified, unit vectors
    make logits so small that a fresh memory is read and written everywhere alike: a read's have a
    standard deviation of 1 / D. At √D their entries are of order one, and so are the logits.
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
        # The hop gate starts near "keep", so that a young memory changes little.
        self.hop_gate = {m: linear(self.features, bias=2.0) for m in self.modalities}
        self.hop_content = {m: linear(self.features) for m in self.modalities}
        self.write_content = {m: linear(self.features) for m in self.modalities}
        if self.write_address == "learned":
            self.write_place = {m: linear(self.slots) for m in self.modalities}
        self.write_gate = linear(3)

    def read(
        self, slots: Float[Array, "S D"], x: Float[Array, "n D"], modality: str
    ) -> tuple[Float[Array, "n D"], Float[Array, "n D"], Float[Array, "n S"]]:
        """Consult ``slots`` for the unit vectors ``x``.

        Returns:
            the unit vectors after the last hop, what the last hop read, and where it read.
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
        """What an instance of ``modality`` writes, and where."""
        both = jnp.concatenate([x, read], axis=-1)
        content = jnp.tanh(self.write_content[modality](both))
        if self.write_address == "learned":
            address = jax.nn.softmax(self.write_place[modality](self.gain * both), axis=-1)
        return content, address

    def gate(
        self, a: Float[Array, "n D"], b: Float[Array, "n D"], read: Float[Array, "n D"]
    ) -> Float[Array, "n 3"]:
        """Shares of (keep, write the first modality, write the second) of every pair."""
        return jax.nn.softmax(self.write_gate(jnp.concatenate([a, b, read], axis=-1)), axis=-1)

    def touch(self, slots: Float[Array, "S D"]) -> None:
        """Call every method once, so that initialisation makes all parameters."""
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
    """Write n instances one after another, in closed form.

    Equal to ``for i: M_s <- keep[i, s] M_s + Σ_m weights[m][i, s] contents[m][i]``, since what an
    instance wrote is later multiplied by the keeps of those after it (spec 3.5).
    """
    # A keep that rounds to 0 (or below) must not become inf - inf.
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

    ``"slotwise"`` moves each slot by at most ``rate`` (η), keeping it in the convex hull of its
    contents; ``"hme"`` is the literal rule of HME, which decays every slot at every instance.
    ``streams`` says which modalities may write; an invalid row keeps everything and writes nothing.
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
