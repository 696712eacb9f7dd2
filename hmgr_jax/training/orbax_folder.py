"""A folder of checkpoints in Orbax's format: written, listed and read, without judging damage."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from hmgr_jax.files import digests
from hmgr_jax.leaves import arrange_like, by_name

METRIC = "metrics/metrics"
"""The file of a step that holds its metric."""


class OrbaxFolder:
    """The steps in ``directory``, each a state, JSON metadata and a metric.

    Args:
        directory: absolute.
        policy: Orbax's preservation policy.
        read_only: neither make nor clean the folder.
    """

    def __init__(self, directory: Path, policy: Any, *, read_only: bool) -> None:
        self.directory = directory
        logging.getLogger("absl").addFilter(_shorten_orbax)
        logging.getLogger("asyncio").addFilter(_drop_repeated_errors)
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
            # Metrics are read by `metric`: in Orbax one damaged file would end the run here.
            lightweight_initialize=True,
        )
        self._manager = ocp.CheckpointManager(directory, options=options, handler_registry=registry)

    def steps(self) -> list[int]:
        """All steps, oldest first; the last one may still be written."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, meta: dict, metric: float | None) -> bool:
        """Start to save a step; False if Orbax declines it. Raises OSError if the disk refuses."""
        meta = digests.seal(meta)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        return self._manager.save(step, args=items, metrics={"selected": metric})

    def wait(self) -> None:
        """Block until the save in progress is on disk; raises its errors."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Release threads and memory."""
        self._manager.close()

    def metric(self, step: int) -> float | None:
        """The metric of a step; None if it was not evaluated or the file is damaged."""
        try:
            return json.loads((self.directory / str(step) / METRIC).read_bytes())["selected"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def meta(self, step: int) -> dict:
        """The metadata of a step. Raises OSError or ValueError if it is absent or damaged."""
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=args).meta
        return digests.unseal(found, known=found)  # older versions wrote no seal

    def tree(self, step: int) -> Any:
        """Names, shapes and dtypes of the saved state: a tree of dicts and lists."""
        return self._manager.item_metadata(step).state.tree

    def state(self, step: int, target: Any) -> Any:
        """Read the leaves of ``target``, whose names, shapes and dtypes must be among those saved.

        Orbax would silently cast another dtype and fill another shape. Leaves are matched by name
        alone, so an empty tuple equals None.
        """
        wanted = by_name(target)
        form = arrange_like(self.tree(step), wanted, ocp.PLACEHOLDER)
        restore = ocp.args.PyTreeRestore(
            form, restore_args=ocp.checkpoint_utils.construct_restore_args(form)
        )
        state = self._manager.restore(step, args=ocp.args.Composite(state=restore)).state
        found = by_name(state)
        return jax.tree.unflatten(jax.tree.structure(target), [found[name] for name in wanted])

    def is_readable(self, step: int) -> bool:
        """Whether a step can be read on the host without a template."""
        try:
            self.meta(step)
            self.state(step, jax.tree.map(lambda x: np.empty(x.shape, x.dtype), self.tree(step)))
        except Exception:
            return False
        return True


def placed(leaf: Any) -> Any:
    """Abstract form of a template's leaf, with its sharding or else one that all can reach."""
    if isinstance(leaf, np.ndarray):
        return leaf
    sharding = leaf.sharding or _anywhere()
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _anywhere() -> Sharding:
    """The first device; every device of every process in a run of several."""
    if jax.process_count() == 1:
        return SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(Mesh(np.asarray(jax.devices()), ("all",)), PartitionSpec())


def _shorten_orbax(record: logging.LogRecord) -> bool:
    """Log filter: no traces of errors that Orbax also raises, no warnings about a busy disk."""
    if "orbax" in record.pathname:
        record.exc_info = None
    return not str(record.msg).startswith("Waiting for previous save")


def _drop_repeated_errors(record: logging.LogRecord) -> bool:
    """Log filter: drop the errors of further arrays after Orbax has raised the first one.

    They would be printed with traces when their tasks are collected, after the run has ended.
    """
    error = record.exc_info[1] if record.exc_info else None
    return "never retrieved" not in record.msg or "orbax" not in f"{record.getMessage()} {error}"
