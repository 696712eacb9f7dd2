"""Checkpoints of a run: saved in the background and verified when read; the best one is kept."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import platform
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from hmgr_jax.errors import UserError
from hmgr_jax.files import digests
from hmgr_jax.leaves import arrange_like, by_name, differences

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "hmgr-jax")


class Checkpoints:
    """The checkpoints of one run in ``directory``, a folder each, named by their step.

    A checkpoint is a state (any pytree of arrays) with a JSON object ``meta`` and, if the model was
    evaluated at that step, a metric (higher is better). The newest ``keep`` checkpoints and the one
    with the best metric are kept. Digests of the files are written to
    ``directory/../digests/STEP.json`` when a step is complete; a step without digests is
    unverified, not damaged. A damaged step is never deleted: it is renamed ``STEP.damaged``.

    Use it in a ``with`` block: a process that ends without ``close`` loses the save in progress.
    ``read_only`` is for readers of a folder in which a run may still be training: no file is
    created, cleaned or renamed, and ``save`` raises. In a run of several processes every process
    makes the same calls; the folder must be shared by all.
    """

    def __init__(self, directory: Path, *, keep: int = 2, read_only: bool = False) -> None:
        if keep < 1:
            raise UserError(f"keep must be at least 1, got {keep}: raise it.")
        self.directory = directory.absolute()
        self._digests = self.directory.parent / "digests"
        self._read_only = read_only
        self._policy = _NewestAndBest(keep)
        self._damaged: set[int] = set()
        self._verified: set[int] = set()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digests")
        self._sealing: Future | None = None
        self._bytes = 0  # of the state saved last
        self._manager = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, step: int, state: Any, meta: dict, metric: float | None) -> None:
        """Start to save ``state`` as the newest step; its buffers may be donated immediately.

        ``metric`` is None without an evaluation; NaN counts as None. Waits for the previous save.
        Raises UserError if the disk refuses, and RuntimeError for a step that is not newer than
        the newest, which Orbax would skip silently.
        """
        if self._read_only:
            raise RuntimeError(f"{self.directory} was opened read-only")
        self.wait()
        newest = max(self.steps(), default=-1)
        if step <= newest:
            raise RuntimeError(f"step {step} cannot be saved: the newest checkpoint is {newest}")
        value = None if metric is None or not math.isfinite(metric) else float(metric)
        self._policy.metrics[step] = value
        self._bytes = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(state))
        # Digests of an earlier, lost save of this step would mark the new one as damaged.
        self._digest_file(step).unlink(missing_ok=True)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        try:
            saved = self._manager.save(step, args=items, metrics={"selected": value})
        except OSError as error:
            raise self._not_written(error) from error
        if not saved:
            raise RuntimeError(f"step {step} was not saved: Orbax declined it")
        self._damaged.discard(step)
        self._verified.discard(step)
        if jax.process_index() == 0:
            self._sealing = self._pool.submit(self._seal, step)

    def restore(
        self, template_state: Any, step: int | None = None, *, partial: bool = False
    ) -> tuple[Any, dict, int]:
        """Read a checkpoint: (state, meta, step); by default the newest undamaged one.

        ``template_state`` is a pytree of arrays or ShapeDtypeStructs that sets containers and
        shardings (none: the first device), or a function of (step, meta) that returns one. With
        ``partial`` it may be a part of the saved state, such as ``{"params": ...}`` to serve.
        Names, shapes and dtypes must equal those of the checkpoint.

        A damaged newest step is set aside with a warning and the step before it is read. Raises
        UserError if no step is left, if the requested step is damaged or absent, or if another
        model saved it.
        """
        while True:
            chosen = self.newest() if step is None else self._check_undamaged(step)
            if chosen is None:
                raise UserError(
                    f"{self.directory} holds no complete checkpoint: train a model there first."
                )
            try:
                return *self._load(chosen, template_state, partial), chosen
            except UserError:
                raise
            except Exception as error:
                verified = digests.exist(self._digest_file(chosen))
                if verified or self._is_readable(chosen):
                    raise  # the files are intact, so the error is elsewhere
                self._set_aside(chosen, f"it cannot be read: {_line(error)}")

    def newest(self) -> int | None:
        """Newest undamaged step, or None; damaged newer steps are set aside."""
        self.wait()
        while steps := self.steps():
            damage = self._damage(steps[-1])
            if damage is None:
                return steps[-1]
            self._set_aside(steps[-1], damage)
        return None

    def steps(self) -> list[int]:
        """All steps, oldest first; the last one may still be written."""
        return [step for step in sorted(self._manager.all_steps()) if step not in self._damaged]

    def best_step(self) -> int | None:
        """Step with the best metric, the earliest of equals; None without an evaluation."""
        return self._policy.best(self.steps())

    def meta(self, step: int) -> dict:
        """Read the ``meta`` of a step. Raises UserError if it is absent or unreadable."""
        self.wait()
        try:
            return self._read_meta(step)
        except (OSError, ValueError) as error:
            raise self._not_whole(step, _line(error)) from error

    def wait(self) -> None:
        """Block until the save in progress and its digests are on disk; raises its errors."""
        sealing, self._sealing = self._sealing, None
        try:
            self._manager.wait_until_finished()
            if sealing is not None:
                sealing.result()
        except (OSError, ValueError) as error:
            raise self._not_written(error) from error

    def close(self) -> None:
        """Wait, then release threads and memory; the object cannot be used afterwards."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        """Open the folder and read the metrics of its steps."""
        logging.getLogger("absl").addFilter(_shorten_orbax)
        logging.getLogger("asyncio").addFilter(_drop_repeated_errors)
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        meta = ocp.JsonCheckpointHandler()
        registry.add("state", ocp.args.StandardSave, ocp.StandardCheckpointHandler())
        registry.add("state", ocp.args.PyTreeRestore, ocp.PyTreeCheckpointHandler())
        registry.add("meta", ocp.args.JsonSave, meta)
        registry.add("meta", ocp.args.JsonRestore, meta)
        options = ocp.CheckpointManagerOptions(
            create=not self._read_only,
            cleanup_tmp_directories=not self._read_only,
            preservation_policy=self._policy,
            # Never called, but without it no metrics are written.
            best_fn=lambda metrics: metrics["selected"],
            # The metrics are read below: in Orbax one damaged file would end the run here.
            lightweight_initialize=True,
        )
        manager = ocp.CheckpointManager(self.directory, options=options, handler_registry=registry)
        for step in manager.all_steps():
            path = self.directory / str(step) / "metrics" / "metrics"
            self._policy.metrics[step] = _read_metric(path)
        return manager

    def _read_meta(self, step: int) -> dict:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args).meta

    def _saved_tree(self, step: int) -> Any:
        """Names, shapes and dtypes of the saved state: a tree of dicts and lists."""
        return self._manager.item_metadata(step).state.tree

    def _read_state(self, step: int, target: Any) -> Any:
        """Read the leaves of ``target``, whose names, shapes and dtypes must be among those saved.

        Orbax would silently cast another dtype and fill another shape. Leaves are matched by name
        alone, so an empty tuple equals None.
        """
        wanted = by_name(target)
        form = arrange_like(self._saved_tree(step), wanted, ocp.PLACEHOLDER)
        restore = ocp.args.PyTreeRestore(
            form, restore_args=ocp.checkpoint_utils.construct_restore_args(form)
        )
        state = self._manager.restore(step, args=ocp.args.Composite(state=restore)).state
        found = by_name(state)
        return jax.tree.unflatten(jax.tree.structure(target), [found[name] for name in wanted])

    def _is_readable(self, step: int) -> bool:
        """Whether a step can be read on the host without a template."""
        try:
            self._read_meta(step)
            tree = self._saved_tree(step)
            self._read_state(step, jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree))
        except Exception:
            return False
        return True

    def _load(self, step: int, template: Any, partial: bool) -> tuple[Any, dict]:
        meta = self._read_meta(step)
        target = jax.tree.map(_placed, template(step, meta) if callable(template) else template)
        unlike = differences(self._saved_tree(step), target, partial=partial)
        if unlike:
            more = f"; and {len(unlike) - 3} more" if len(unlike) > 3 else ""
            raise UserError(
                f"{self.directory / str(step)} is a checkpoint of another model "
                f"({'; '.join(unlike[:3])}{more}): use the configuration it was trained with, or "
                "another --workdir."
            )
        return self._read_state(step, target), meta

    def _check_undamaged(self, step: int) -> int:
        """Return the requested step if it exists and is undamaged."""
        self.wait()
        if step not in self.steps():
            raise self._not_whole(step, "it damaged" if step in self._damaged else "none")
        damage = self._damage(step)
        if damage is not None:
            self._set_aside(step, damage)
            raise self._not_whole(step, f"it damaged ({damage})")
        return step

    def _damage(self, step: int) -> str | None:
        """The damage that process 0 finds in the files of a step; equal in every process."""
        if step in self._verified:  # hashing gigabytes once is enough
            return None
        damage = None
        if jax.process_index() == 0:
            damage = digests.first_damage(self.directory / str(step), self._digest_file(step))
        found = _of_process_0(damage is not None)
        if not found:
            self._verified.add(step)
        return damage or ("process 0 names the file" if found else None)

    def _set_aside(self, step: int, damage: str) -> None:
        """Stop using a damaged step and warn; its files are kept."""
        self._damaged.add(step)
        name = "" if self._read_only else f" as {self._rename_damaged(step)}"
        warnings.warn(
            f"the checkpoint of step {step} in {self.directory} is damaged ({damage}): it is set "
            f"aside{name}",
            RuntimeWarning,
            stacklevel=4,
        )

    def _rename_damaged(self, step: int) -> str:
        """Rename a step to a name that Orbax ignores, and reopen the folder."""
        self._manager.close()
        count = 1
        if jax.process_index() == 0:
            while (self.directory / (name := _damaged(step, count))).exists():
                count += 1
            os.rename(self.directory / str(step), self.directory / name)
            if self._digest_file(step).exists():
                os.rename(self._digest_file(step), self._digests / f"{name}.json")
        count = _of_process_0(count)  # also waits for the rename
        self._manager = self._open()
        return _damaged(step, count)

    def _digest_file(self, step: int) -> Path:
        return self._digests / f"{step}.json"

    def _seal(self, step: int) -> None:
        """On a thread: wait until the step is complete, write its digests, drop old ones."""
        try:
            self._manager.wait_until_finished()
        except Exception:
            return  # wait(), save() or close() raises the same error
        digests.write(self.directory / str(step), self._digest_file(step))
        for file in self._digests.glob("*.json"):
            if file.stem.isdigit() and not (self.directory / file.stem).exists():
                file.unlink()

    def _not_written(self, error: Exception) -> UserError:
        free = shutil.disk_usage(self.directory).free
        return UserError(
            f"A checkpoint of {_megabytes(self._bytes)} could not be written to {self.directory}, "
            f"which has {_megabytes(free)} free ({_line(error)}): make room or repair the disk "
            f"and run the same command to resume; the steps {self.steps()} are complete."
        )

    def _not_whole(self, step: int, found: str) -> UserError:
        return UserError(
            f"{self.directory} has no complete checkpoint of step {step} (found {found}): choose "
            f"one of the steps {self.steps()}."
        )


class _NewestAndBest:
    """Orbax preservation policy: the newest ``keep`` steps and the one with the best metric.

    ``metrics`` maps a step to its metric (higher is better), None without an evaluation; the
    earliest of equal steps is the best.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.metrics: dict[int, float | None] = {}

    def best(self, steps: Sequence[int]) -> int | None:
        known = [(value, -step) for step in steps if (value := self.metrics.get(step)) is not None]
        return -max(known)[1] if known else None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of ``checkpoints`` (oldest first) are kept; called by Orbax."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self.keep :], self.best(steps)}
        return [step in kept for step in steps]


def _damaged(step: int, count: int) -> str:
    return f"{step}.damaged" if count == 1 else f"{step}.damaged-{count}"


def _of_process_0(value: int) -> int:
    """The value of process 0, in every process of the run."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _placed(leaf: Any) -> Any:
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


def _read_metric(path: Path) -> float | None:
    try:
        return json.loads(path.read_bytes())["selected"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damage is reported when the step is restored


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
