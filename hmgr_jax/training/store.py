"""The dealings with Orbax: what is kept, how a step is written and how its parts are read."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from hmgr_jax.leaves import arrange_like, by_name


class NewestAndBest:
    """Orbax preservation policy: the newest ``keep`` steps and the one with the best metric.

    ``metrics`` maps a step to its metric, None where it was not evaluated; more is better, and of
    equals the earliest is best, so that a later equal does not move the choice.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.metrics: dict[int, float | None] = {}

    def best(self, steps: Sequence[int]) -> int | None:
        """The best of ``steps``; None where none was evaluated."""
        known = [(value, -step) for step in steps if (value := self.metrics.get(step)) is not None]
        return -max(known)[1] if known else None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of ``checkpoints`` (oldest first) stay."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self.keep :], self.best(steps)}
        return [step in kept for step in steps]


def open_manager(
    directory: Path, policy: NewestAndBest, *, read_only: bool
) -> ocp.CheckpointManager:
    """Open ``directory`` and read the metrics of its steps into ``policy``."""
    logging.getLogger("absl").addFilter(_in_a_word)
    logging.getLogger("asyncio").addFilter(_told_once)
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    meta = ocp.JsonCheckpointHandler()
    registry.add("state", ocp.args.StandardSave, ocp.StandardCheckpointHandler())
    registry.add("state", ocp.args.PyTreeRestore, ocp.PyTreeCheckpointHandler())
    registry.add("meta", ocp.args.JsonSave, meta)
    registry.add("meta", ocp.args.JsonRestore, meta)
    options = ocp.CheckpointManagerOptions(
        create=not read_only,
        cleanup_tmp_directories=not read_only,
        preservation_policy=policy,
        # Never called, but without it no metrics are written.
        best_fn=lambda metrics: metrics["selected"],
        # The policy reads the metrics itself: in Orbax one damaged file would end the run here.
        lightweight_initialize=True,
    )
    manager = ocp.CheckpointManager(directory, options=options, handler_registry=registry)
    for step in manager.all_steps():
        policy.metrics[step] = _read_metric(directory / str(step) / "metrics" / "metrics")
    return manager


def save(
    manager: ocp.CheckpointManager, step: int, state: Any, meta: dict, metric: float | None
) -> bool:
    """Start to write a step; False if Orbax declined, as it does for a step that is not newer."""
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
    return manager.save(step, args=items, metrics={"selected": metric})


def read_meta(manager: ocp.CheckpointManager, step: int) -> dict:
    """Read the JSON object of a step."""
    return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta


def saved_tree(manager: ocp.CheckpointManager, step: int) -> Any:
    """Names, shapes and dtypes of the saved state: a tree of dicts and lists."""
    return manager.item_metadata(step).state.tree


def read_state(manager: ocp.CheckpointManager, step: int, target: Any) -> Any:
    """Read the leaves of ``target``, whose names, shapes and dtypes must be among those saved.

    Orbax would cast another dtype and fill another shape without a word. Leaves are matched by
    name alone: an empty tuple here and None there hold the same, namely nothing.
    """
    wanted = by_name(target)
    form = arrange_like(saved_tree(manager, step), wanted, ocp.PLACEHOLDER)
    restore = ocp.args.PyTreeRestore(
        form, restore_args=ocp.checkpoint_utils.construct_restore_args(form)
    )
    found = by_name(manager.restore(step, args=ocp.args.Composite(state=restore)).state)
    return jax.tree.unflatten(jax.tree.structure(target), [found[name] for name in wanted])


def is_readable(manager: ocp.CheckpointManager, step: int) -> bool:
    """Whether all of a step can be read at all, on the host and without anybody's template."""
    try:
        read_meta(manager, step)
        tree = saved_tree(manager, step)
        read_state(manager, step, jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree))
    except Exception:
        return False
    return True


def placed(leaf: Any) -> Any:
    """Abstract form of a template's leaf, placed where it says, else where all can reach it."""
    if isinstance(leaf, np.ndarray):
        return leaf
    sharding = leaf.sharding or _anywhere()
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _anywhere() -> Sharding:
    """The first device; every device of every process where there are several."""
    if jax.process_count() == 1:
        return SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(Mesh(np.asarray(jax.devices()), ("all",)), PartitionSpec())


def _in_a_word(record: logging.LogRecord) -> bool:
    """Log filter: Orbax prints the trace of every error that it raises a moment later as well.

    It also warns where a save is waited for, which we do on purpose: a busy disk is no mistake.
    """
    if "orbax" in record.pathname:
        record.exc_info = None
    return not str(record.msg).startswith("Waiting for previous save")


def _told_once(record: logging.LogRecord) -> bool:
    """Log filter: of several arrays that fail in one save, Orbax raises the first error alone.

    The others' errors would come out, with traces, when the tasks that hold them are collected,
    which is after the run has said in a sentence what happened.
    """
    error = record.exc_info[1] if record.exc_info else None
    return "never retrieved" not in record.msg or "orbax" not in f"{record.getMessage()} {error}"


def _read_metric(path: Path) -> float | None:
    try:
        return json.loads(path.read_bytes())["selected"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a damaged file is told when the step is restored
