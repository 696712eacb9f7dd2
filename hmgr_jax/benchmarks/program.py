"""A training step over the devices of a mesh, compiled and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hmgr_jax.benchmarks.workload import Workload
from hmgr_jax.distributed.parallel import DATA, MappedAxis, map_step, shardings
from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Tree
from hmgr_jax.training.flops import matmul_flops
from hmgr_jax.training.optimizer import Optimizer, Schedule
from hmgr_jax.training.step import device_step, init_state

MEMORY = ("argument", "output", "alias", "temp")


class Program:
    """The training step of ``workload`` over ``mesh``.

    Compiling and counting need only shapes, so a step may be far larger than this machine.
    """

    def __init__(self, workload: Workload, mesh: Mesh) -> None:
        self.workload = workload
        self.system = workload.system()
        self._replicated, self._split = NamedSharding(mesh, P()), NamedSharding(mesh, P(DATA))
        optimizer = Optimizer(Schedule(2e-4, workload.plan().steps), self.system.parts())
        self._init = lambda: init_state(self.system, optimizer, 0)
        split = bool(self.system.split_slots)
        step = device_step(self.system, optimizer, MappedAxis())
        self.step: Any = map_step(step, mesh, split_memory=split)
        state = jax.eval_shape(self._init)
        self._places = shardings(mesh, state, split_memory=split)
        self.state = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            state,
            self._places,
        )
        rows = (workload.batch,)
        self.tables = jax.tree.map(self._everywhere, jax.eval_shape(self._make_tables))
        self.batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(rows + x.shape[1:], x.dtype, sharding=self._split),
            workload.items(self.system, batch=1),
        )

    def _everywhere(self, x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated)

    def _make_tables(self) -> Tree:
        """Tables that the system computes without data."""
        return self.system.init(jax.random.key(0)).tables

    def compiled(self) -> tuple[Any, float]:
        """The executable, and the seconds that tracing and compiling took."""
        begin = time.perf_counter()
        compiled = self.step.lower(self.state, self.tables, self.batch).compile()
        return compiled, time.perf_counter() - begin

    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(x.size for x in jax.tree.leaves(self.state.params))

    def flops(self) -> int:
        """FLOPs of one device's matrix products; a loop counts once per iteration."""
        return matmul_flops(self.step, self.state, self.tables, self.batch)

    def times(self, compiled: Any, repeats: int) -> list[float]:
        """Seconds of ``repeats`` warm steps, each run to its end; called by every process."""
        state: Tree = jax.jit(self._init, out_shardings=self._places)()
        tables: Tree = jax.jit(self._make_tables, out_shardings=self._replicated)()

        def place(x: Any) -> jax.Array:
            return jax.make_array_from_callback(x.shape, self._split, lambda part: x[part])

        items = jax.tree.map(place, self.workload.items(self.system))

        def advance() -> Any:
            nonlocal state
            state, report = compiled(state, tables, items)
            return report

        return warm_times(advance, repeats)


def xla_counts(compiled: Any) -> dict[str, Any]:
    """XLA's FLOPs of one device (a loop counts once), and the bytes of one device's program."""
    memory = compiled.memory_analysis()
    return {
        "xla_flops": float(compiled.cost_analysis().get("flops", 0.0)),
        "memory_bytes": {name: getattr(memory, f"{name}_size_in_bytes") for name in MEMORY},
    }


def program_bytes(compiled: Any) -> int:
    """Bytes of arguments, outputs and temporaries of one device's program."""
    memory = xla_counts(compiled)["memory_bytes"]
    return sum(memory[part] for part in ("argument", "output", "temp"))


def platform() -> str:
    """Backend and kind of the first device, such as ``cpu cpu``."""
    return f"{jax.default_backend()} {jax.devices()[0].device_kind}"


def matmul_rate(dtype: str, size: int = 0) -> float:
    """FLOPs per second of a square matrix product of ``dtype`` on this process's first device."""
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x, y: einsum("ij,jk->ik", x, y, dtype=jnp.dtype(dtype)))
    times = sorted(warm_times(lambda: product(a, a), 5))
    return 2 * size**3 / times[len(times) // 2]


def warm_times(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of ``repeats`` calls after one that is not counted."""
    return _warm_calls(call, repeats)[0]


def median_time(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median seconds of ``repeats`` warm calls, and what the last one returned."""
    times, returned = _warm_calls(call, repeats)
    return statistics.median(times), returned


def _warm_calls(call: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    returned = jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        returned = jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return times, returned
