"""The compiled encoders of a model: codes of items, their coarse vectors and uncertainties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hmgr_jax.data.pipeline import BUCKETS, eval_batches
from hmgr_jax.data.split import Source, Split
from hmgr_jax.distributed import hosts
from hmgr_jax.distributed.parallel import DATA, MappedAxis, memory_specs, place, shard
from hmgr_jax.distributed.watchdog import report_progress
from hmgr_jax.errors import FoundNonFinite
from hmgr_jax.evaluation.tiles import Bucket
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models.base import Model, Variables, select_inputs
from hmgr_jax.shapes import Tree

Codes = Any
SHARED = 256
"""Larger batches are cut to the items of a split; smaller ones have one shape for all splits, so
that no split compiles its own encoder."""


class Encoders:
    """The compiled encoders of a model on the devices of this process.

    Args:
        model: the model.
        mesh: the devices.
        batch_size: items at once, rounded up to a multiple of the devices.
        tile: most rows and columns of a tile of scores.
        buckets: lengths to which sentences are padded.
        threads: threads that read items.
    """

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        *,
        batch_size: int = SHARED,
        tile: int = 4096,
        buckets: Sequence[int] = BUCKETS,
        threads: int = 2,
    ) -> None:
        devices = mesh.devices.size
        self.model, self.tile, self.buckets = model, tile, tuple(buckets)
        self.threads, self._devices = threads, devices
        self.mesh = hosts.local_mesh(mesh)
        self.batch_size = self._whole(batch_size)
        self.split = bool(model.split_slots) and model.split_slots % self.mesh.devices.size == 0
        self._with_whole_memory = {m: jax.jit(self._encoder(m)) for m in model.modalities}
        self._encoders = self._with_whole_memory
        if self.split:
            self._encoders = {m: jax.jit(self._encoder_over_parts(m)) for m in model.modalities}

    def _whole(self, items: int) -> int:
        """The next multiple of the devices."""
        return -(-items // self._devices) * self._devices

    def _encoder(self, modality: str) -> Callable[[Variables, Tree, Any], Codes]:
        def encode(variables: Variables, items: Tree, numbers: Any) -> Codes:
            zero = jnp.zeros((), jnp.int32)
            keys = Keys.at(zero, zero, numbers)
            return self.model.encode(variables, modality, items, train=False, keys=keys)[0]

        return encode

    def _encoder_over_parts(self, modality: str) -> Callable[[Variables, Tree, Any], Codes]:
        """The encoder of a model whose memory the devices split."""

        def own_items(variables: Variables, items: Tree) -> Codes:
            return self.model.encode_over_parts(variables, modality, items, MappedAxis())

        def encode(variables: Variables, items: Tree, _: Any) -> Codes:
            into, out = (memory_specs(variables, split_memory=True), P(DATA)), P(DATA)
            given: dict[str, Any] = {"in_specs": into, "out_specs": out, "check_vma": False}
            return jax.shard_map(own_items, mesh=self.mesh, **given)(variables, items)

        return encode

    def encode_batch(
        self, variables: Variables, modality: str, items: Tree, numbers: np.ndarray
    ) -> Codes:
        """Codes on the host of one batch; the batch size is a multiple of the devices."""
        wanted = select_inputs(self.model.inputs()[modality], items, f"{modality} items")
        items = shard(self.mesh, wanted)
        return jax.device_get(self._encoders[modality](variables, items, numbers))

    def encode(self, variables: Variables, modality: str, source: Source) -> Codes | list[Bucket]:
        """Codes of all items of ``source`` in order, or buckets if their shapes differ."""
        found: dict[Any, list[tuple[np.ndarray, Codes]]] = {}
        report_progress(compiling=True)
        share, buckets = hosts.process_share(), self.buckets
        size = min(self.batch_size, self._whole(max(len(source), SHARED)))
        for numbers, valid, items in eval_batches(
            source, size, process=share, buckets=buckets, threads=self.threads
        ):
            codes = self.encode_batch(variables, modality, items, numbers)
            numbers, valid, codes = hosts.exchange((numbers, valid, codes))
            codes = jax.tree.map(lambda x, keep=valid: x[keep], codes)
            shape = str(jax.tree.map(lambda x: x.shape[1:], codes))
            found.setdefault(shape, []).append((numbers[valid], codes))
            report_progress()
        parts = [_bucket(of_shape) for of_shape in found.values()]
        if len(parts) > 1:
            return parts
        order = np.argsort(parts[0].items)
        return jax.tree.map(lambda x: x[order], parts[0].codes)

    def encode_split(self, variables: Variables, split: Split) -> dict[str, Codes]:
        """Codes of every modality of a split."""
        return {m: self.encode(variables, m, split.sources[m]) for m in self.model.modalities}

    def coarse(
        self, variables: Variables, modality: str, codes: Codes | list[Bucket]
    ) -> np.ndarray:
        """``model.coarse`` of codes: float32 [n, E], in the order of items."""
        if not isinstance(codes, list):
            codes = jax.tree.map(jnp.asarray, codes)
            return np.asarray(self.model.coarse(variables, modality, codes))
        return _in_order(codes, [self.coarse(variables, modality, b.codes) for b in codes])

    def uncertainty(self, codes: Codes | list[Bucket]) -> np.ndarray | None:
        """``model.uncertainty`` of codes: [n], in the order of items, or None for points."""
        if not isinstance(codes, list):
            found = self.model.uncertainty(codes)
            return None if found is None else np.asarray(found)
        parts = [self.uncertainty(bucket.codes) for bucket in codes]
        known = [part for part in parts if part is not None]
        return _in_order(codes, known) if known else None

    def to_local_devices(self, variables: Variables) -> Variables:
        """Variables, copied to the devices of this process; they split a memory that is split."""
        return place(self.mesh, hosts.local_arrays(variables), split_memory=self.split)


def _bucket(parts: list[tuple[np.ndarray, Codes]]) -> Bucket:
    items = np.concatenate([numbers for numbers, _ in parts])
    codes = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[codes for _, codes in parts])
    return Bucket(items, codes)


def _in_order(buckets: Sequence[Bucket], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Results of every bucket, joined in the order of items."""
    order = np.argsort(np.concatenate([bucket.items for bucket in buckets]))
    return np.concatenate(parts)[order]


def check_finite(values: np.ndarray, what: str) -> np.ndarray:
    """``values`` [n, ...]; raises `FoundNonFinite` with the first row that is not finite."""
    rows = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(rows):
        raise FoundNonFinite(
            f"{what} {rows[0]} (of {len(rows)}) holds NaN or infinity: check its inputs and the "
            "weights of the model."
        )
    return values
