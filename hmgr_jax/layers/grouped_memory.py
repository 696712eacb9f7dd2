"""A memory read and written by the groups of a batch in turn, over many devices (HMGR spec 3.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.layers.memory import MemoryAccess, write, write_shares
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree


@dataclass(frozen=True)
class GroupedMemory:
    """How a batch meets its memory: group κ reads what the groups before it have left, and writes.

    A row's group is its global number modulo ``groups``. With one group nothing would be read after
    it was written, and writing could not be learned. Each device reads for its own rows; contents,
    addresses and gates are gathered, so that the slots stay bit-identical on all devices.
    """

    access: MemoryAccess
    params: Tree
    groups: int = 8
    rate: float = 0.1
    rule: str = "slotwise"
    streams: tuple[bool, bool] = (True, True)
    """Which of the two modalities write."""
    writes: bool = True

    def read(
        self, slots: Float[Array, "M S D"], x: Float[Array, "n D"], modality: str
    ) -> tuple[Float[Array, "n D"], Float[Array, "n D"], Float[Array, "n S"]]:
        """``MemoryAccess.read`` of the modality's own memory, or of the one that both share."""
        own = self.access.modalities.index(modality) if len(slots) > 1 else 0
        return self._apply("read", slots[own], x, modality)

    def read_then_write(
        self,
        slots: Float[Array, "M S D"],
        codes: Mapping[str, Float[Array, "b D"]],
        valid: Bool[Array, " b"],
        axis: Any,
    ) -> tuple[dict[str, Float[Array, "b D"]], Float[Array, "M S D"], Float[Array, "2 S"]]:
        """Visit all groups with the local rows ``codes``; ``axis`` is the model's `Axis`.

        Returns:
            the local codes after the memory, the slots after the batch, and for each modality how
            much of its reading fell on each slot (shares that sum to 1, over all devices).
        """
        rows = valid.shape[0]
        first = axis.index() * rows
        spread = jnp.arange(-(-rows // self.groups)) * self.groups

        def visit(slots: Array, group: Array) -> tuple[Array, tuple[dict[str, Array], Array]]:
            place = (group - first) % self.groups + spread
            here = place < rows
            place = jnp.minimum(place, rows - 1)
            here = here & valid[place]
            x = {m: codes[m][place] for m in self.access.modalities}
            reads = {m: self.read(slots, x[m], m) for m in x}
            hats = {m: hat for m, (hat, _, _) in reads.items()}
            at = jnp.stack([at for _, _, at in reads.values()])
            used = jnp.sum(jnp.where(here[None, :, None], at, 0.0), axis=1)
            if self.writes:
                slots = self._write(slots, x, reads, here, axis)
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
        """The slots after all pairs of ``codes`` have met them, ``batch`` pairs at a time."""
        pairs = next(iter(codes.values())).shape[0]
        batches = -(-pairs // batch)
        missing = batches * batch - pairs

        def cut(x: Array) -> Array:
            return jnp.pad(x, ((0, missing), (0, 0))).reshape(batches, batch, -1)

        valid = (jnp.arange(batches * batch) < pairs).reshape(batches, batch)

        def meet(slots: Array, given: tuple[Mapping[str, Array], Array]) -> tuple[Array, None]:
            _, slots, _ = self.read_then_write(slots, *given, axis)
            return slots, None

        return jax.lax.scan(meet, slots, ({m: cut(x) for m, x in codes.items()}, valid))[0]

    def _write(
        self,
        slots: Array,
        x: Mapping[str, Array],
        reads: Mapping[str, tuple[Array, Array, Array]],
        valid: Array,
        axis: Any,
    ) -> Array:
        """The slots after one group of all devices has written to its memories."""
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
