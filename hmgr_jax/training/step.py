"""The training state, and one training step as a per-device program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models.base import Axis, Model, Variables
from hmgr_jax.shapes import Array, Int, Tree
from hmgr_jax.training.optimizer import Optimizer

Report = dict[str, Array]


@struct.dataclass
class State:
    """Input and output of a step, and content of a checkpoint."""

    step: Int[Array, ""]
    seed: Int[Array, ""]
    params: Tree
    stats: Tree
    memory: Tree
    optimizer: Tree
    bad_in_a_row: Int[Array, ""]
    """Consecutive steps whose update was discarded because it was not finite."""
    bad_total: Int[Array, ""]

    def variables(self, tables: Tree) -> Variables:
        """The variables of the model, with ``tables``."""
        return Variables(self.params, self.stats, self.memory, tables)


def init_state(model: Model, optimizer: Optimizer, seed: int, tables: Tree = None) -> State:
    """A fresh state at step 0; parameters depend on ``seed`` alone."""
    variables = model.init(jax.random.key(seed), tables)

    def zero() -> Array:
        return jnp.zeros((), jnp.int32)

    return State(
        step=zero(),
        seed=jnp.asarray(seed, jnp.int32),
        params=variables.params,
        stats=variables.stats,
        memory=variables.memory,
        optimizer=optimizer.init(variables.params),
        bad_in_a_row=zero(),
        bad_total=zero(),
    )


def device_step(
    model: Model, optimizer: Optimizer, axis: Axis
) -> Callable[[State, Tree, Mapping[str, Any]], tuple[State, Report]]:
    """The step ``(state, tables, local batch) -> (state, report)`` of one device.

    Sums over the batch (``Model.summed``) are reported per row: this is the only place that turns
    them. The loss is the same number on every device, so the gradient is the mean of the gradients
    over devices. If the loss, a gradient, a statistic or what the memory would store is not finite,
    only the step and the counters change. The state is the same on every device, except that each
    holds its part of a split memory.
    """

    def step(state: State, tables: Tree, batch: Mapping[str, Any]) -> tuple[State, Report]:
        row = batch["row"]
        keys = Keys.at(state.seed, state.step, row["index"])

        def total_loss(params: Tree) -> tuple[Array, tuple[Any, Tree, Tree]]:
            params = optimizer.hold_frozen(params)
            variables = Variables(params, state.stats, state.memory, tables)
            codes, stats = model.encode_batch(variables, batch, row, keys=keys, axis=axis)
            total, terms, stats, written = model.loss(
                Variables(params, stats, state.memory, tables),
                codes,
                row,
                step=state.step,
                keys=keys,
                axis=axis,
            )
            return total, (terms, stats, written)

        (total, (terms, stats, written)), gradient = jax.value_and_grad(total_loss, has_aux=True)(
            state.params
        )
        gradient = jax.tree.map(axis.mean, gradient)
        params, opt_state, norm, rate = optimizer.update(
            gradient, state.optimizer, state.params, state.step
        )
        good = jnp.isfinite(total) & jnp.isfinite(norm) & _all_finite((stats, written))

        def keep(new: Tree, old: Tree) -> Tree:
            return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)

        bad = 1 - good.astype(jnp.int32)
        new_state = State(
            step=state.step + 1,
            seed=state.seed,
            params=keep(params, state.params),
            stats=keep(stats, state.stats),
            # In place: a copy of so large a memory would dominate the step.
            memory=model.write_memory(state.memory, written, good, axis),
            optimizer=keep(opt_state, state.optimizer),
            bad_in_a_row=(state.bad_in_a_row + bad) * bad,
            bad_total=state.bad_total + bad,
        )
        report = {"loss": total, **terms}
        if (plateau := model.plateau(row, state.step, axis)) is not None:
            report["plateau"] = plateau
        rows = jnp.maximum(axis.sum(jnp.sum(row["valid"])), 1).astype(jnp.float32)
        report |= {n: report[n] / rows for n in (*model.summed, "plateau") if n in report}
        report |= {"grad_norm": norm, "lr": rate}
        report["bad_in_a_row"] = new_state.bad_in_a_row
        report["bad_total"] = new_state.bad_total
        return new_state, report

    return step


def _all_finite(tree: Tree) -> Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    if not leaves:
        # jaxlib 0.11.2 ends with a segmentation fault when shard_map over several devices takes an
        # array of size 0: its compiler removes the array and then looks up the array's sharding.
        return jnp.bool_(True)
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in leaves], bool))
