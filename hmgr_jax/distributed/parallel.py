"""Devices: a mesh of one axis, the axis that a model sees, and the two mappers of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hmgr_jax.shapes import Array, Int, Tree

DATA = "data"
MAPPERS = ("shard_map", "pmap")


class MappedAxis:
    """The device axis inside a mapped step, see ``models.base.Axis``."""

    @property
    def size(self) -> int:
        """How many devices."""
        return jax.lax.axis_size(DATA)

    def index(self) -> Int[Array, ""]:
        """This device's number."""
        return jax.lax.axis_index(DATA)

    def gather(self, tree: Tree) -> Tree:
        """Every leaf [b, ...] to [B, ...], in global row order."""
        return jax.tree.map(lambda x: jax.lax.all_gather(x, DATA, tiled=True), tree)

    def mean(self, x: Array) -> Array:
        """Mean over devices."""
        return jax.lax.pmean(x, DATA)

    def sum(self, x: Array) -> Array:
        """Sum over devices."""
        return jax.lax.psum(x, DATA)

    def exchange(self, tree: Tree) -> Tree:
        """Send x[d] of every leaf [devices, ...] to device d, and receive as much of each."""
        return jax.tree.map(lambda x: jax.lax.all_to_all(x, DATA, 0, 0), tree)

    def sum_of_rows(self, x: Array) -> Array:
        """Sum of x[d] [devices, ...] over devices, on device d."""
        return jax.lax.psum_scatter(x, DATA)

    def pair_rows(self, score: Callable[[Tree, Tree], Array], a: Tree, b: Tree) -> Array:
        """Score matrix [B, B]: own rows of ``a`` with all of ``b``, then the rows gathered."""
        return self.gather(score(a, self.gather(b)))


def make_mesh(devices: int = 0) -> Mesh:
    """A mesh over the first ``devices`` devices (0: all); `ValueError` if there are fewer."""
    # A process reads adjacent rows of a batch, so its devices are adjacent in the mesh.
    found = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if jax.process_count() > 1 and devices not in (0, len(found)):
        raise ValueError(
            f"parallel.devices is {devices}, but several processes use all of their {len(found)}"
        )
    if devices > len(found):
        raise ValueError(f"parallel.devices is {devices}, but this machine has {len(found)}")
    chosen = np.asarray(found[: devices or len(found)])
    # Explicit axes, the default of jax.make_mesh, break scans and products of sharded arrays.
    return Mesh(chosen, (DATA,), axis_types=(AxisType.Auto,))


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Copy a tree to every device of the mesh."""
    return _put(tree, NamedSharding(mesh, P()))


def place(mesh: Mesh, tree: Tree, *, split_memory: bool) -> Tree:
    """Copy a `State` or `Variables` to every device; of a split memory each gets its part.

    Each of several processes passes the whole tree. Arrays that lie as wanted are not copied.
    """

    def put(x: Any, sharding: NamedSharding) -> Any:
        if getattr(x, "sharding", None) == sharding:
            return x
        if sharding.is_fully_replicated or sharding.is_fully_addressable:
            return _put(x, sharding)
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(put, tree, shardings(mesh, tree, split_memory=split_memory))


def shardings(mesh: Mesh, tree: Tree, *, split_memory: bool) -> Tree:
    """Where the arrays of a `State` or `Variables` lie, see `memory_specs`."""
    specs = memory_specs(tree, split_memory=split_memory)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def memory_specs(tree: Tree, *, split_memory: bool) -> Tree:
    """Specs of a `State` or `Variables`: replicated, but a split memory by its first axis."""
    specs = jax.tree.map(lambda _: P(), tree)
    if not split_memory:
        return specs
    return specs.replace(memory=jax.tree.map(lambda x: P(DATA) if x.ndim else P(), tree.memory))


def shard(mesh: Mesh, batch: Tree) -> Tree:
    """Split a batch of host arrays over the devices along its leading axis.

    Each of several processes passes the rows of its own devices.
    """
    return _put(batch, NamedSharding(mesh, P(DATA)))


def _put(tree: Tree, sharding: NamedSharding) -> Tree:
    if sharding.is_fully_addressable:
        return jax.tree.map(lambda x: jax.device_put(x, sharding), tree)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def map_step(
    step: Callable[..., Any],
    mesh: Mesh,
    mapper: str = "shard_map",
    *,
    split_memory: bool = False,
) -> Callable[..., Any]:
    """Map ``step(state, tables, batch) -> (state, report)`` over the devices of ``mesh``.

    State, tables and report are equal on all devices, except that each holds its part of a split
    memory (``shard_map`` only); the batch is split along its leading axis. The state is donated.
    Both mappers run the same function and give the same numbers. JAX does not check that the
    outputs are equal on all devices (``check_vma=False``, since the check rejects a scan with a
    constant carry); tests check it.
    """
    if mapper == "shard_map":

        def over_devices(state: Tree, tables: Tree, batch: Tree) -> Any:
            specs = memory_specs(state, split_memory=split_memory)
            into, out = (specs, P(), P(DATA)), (specs, P())
            mapped = jax.shard_map(step, mesh=mesh, in_specs=into, out_specs=out, check_vma=False)
            return mapped(state, tables, batch)

        return jax.jit(over_devices, donate_argnums=0)
    if mapper != "pmap":
        raise ValueError(f"parallel.mapper must be one of {', '.join(MAPPERS)}, got {mapper!r}")
    size = mesh.devices.size
    pmapped = jax.pmap(
        step,
        axis_name=DATA,
        in_axes=(None, None, 0),
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=0,
    )

    def run(state: Tree, tables: Tree, batch: Tree) -> Any:
        split = jax.tree.map(lambda x: x.reshape(size, x.shape[0] // size, *x.shape[1:]), batch)
        return pmapped(state, tables, split)

    return run
