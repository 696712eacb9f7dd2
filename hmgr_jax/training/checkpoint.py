"""Checkpoints of a run: saved in the background, checked when read, the best one never lost."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from hmgr_jax.errors import UserError
from hmgr_jax.files import digests
from hmgr_jax.leaves import differences
from hmgr_jax.training import store

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "hmgr-jax")


class Checkpoints:
    """The checkpoints of one run in ``directory``, a folder each, named by their step.

    A checkpoint is a state (any pytree of arrays) with a JSON object ``meta`` and, if the model was
    evaluated at that step, a metric of which more is better. The newest ``keep`` and the one with
    the best metric stay, whatever their order. Digests of the files lie beside, in
    ``directory/../digests/STEP.json``, written when a step is complete; without them a step is
    unverified, not damaged. A damaged step is never deleted: it is renamed ``STEP.damaged``.

    Use it in a ``with`` block: a process that ends without ``close`` loses the save under way.
    ``read_only`` is for readers of a folder in which a run may still be training: nothing is made,
    cleaned or renamed, and ``save`` is refused. In a run of several processes every process makes
    the same calls; the folder must be shared by all.
    """

    def __init__(self, directory: Path, *, keep: int = 2, read_only: bool = False) -> None:
        if keep < 1:
            raise UserError(f"expected to keep at least 1 checkpoint, found keep={keep}: raise it")
        self.directory = directory.absolute()
        self._digests = self.directory.parent / "digests"
        self._read_only = read_only
        self._policy = store.NewestAndBest(keep)
        self._damaged: set[int] = set()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digests")
        self._sealing: Future | None = None
        self._bytes = 0  # of the state that was saved last
        self._manager = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def save(self, step: int, state: Any, meta: dict, metric: float | None) -> None:
        """Start to save ``state`` (its buffers may be donated at once) as the newest step.

        ``metric`` is None where nothing was evaluated; NaN is taken as None. Waits for the save
        before it. Raises UserError where the disk refuses, RuntimeError for a step that is not
        newer than the newest, which Orbax would pass over in silence.
        """
        if self._read_only:
            raise RuntimeError(f"{self.directory} was opened to be read only")
        self.wait()
        newest = max(self.steps(), default=-1)
        if step <= newest:
            raise RuntimeError(f"step {step} cannot be saved: the newest checkpoint is {newest}")
        value = None if metric is None or not math.isfinite(metric) else float(metric)
        self._policy.metrics[step] = value
        self._bytes = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(state))
        # This step may have been written and lost before; its old digests would condemn the new.
        self._digest_file(step).unlink(missing_ok=True)
        try:
            saved = store.save(self._manager, step, state, meta, value)
        except OSError as error:
            raise self._not_written(error) from error
        if not saved:
            raise RuntimeError(f"step {step} was not saved: Orbax declined it")
        self._damaged.discard(step)
        if jax.process_index() == 0:
            self._sealing = self._pool.submit(self._seal, step)

    def restore(
        self, template_state: Any, step: int | None = None, *, partial: bool = False
    ) -> tuple[Any, dict, int]:
        """Read a checkpoint: (state, meta, step); by default the newest that is not damaged.

        ``template_state`` is a pytree of arrays or ShapeDtypeStructs and decides containers and
        shardings (none: the first device); or a function of (step, meta) that makes one. With
        ``partial`` it may be a part of what was saved, such as ``{"params": ...}`` to serve.
        Names, shapes and dtypes must be those of the checkpoint.

        A damaged newest step is set aside with a warning and the one before it is read. Raises
        UserError if none is left, if the step that was asked for is damaged or not there, or if it
        was saved by another model.
        """
        while True:
            chosen = self.newest() if step is None else self._demand(step)
            if chosen is None:
                raise UserError(
                    f"expected a checkpoint in {self.directory}, found none that is whole: "
                    "train a model there first"
                )
            try:
                return *self._load(chosen, template_state, partial), chosen
            except UserError:
                raise
            except Exception as error:
                verified = digests.exist(self._digest_file(chosen))
                if verified or store.is_readable(self._manager, chosen):
                    raise  # the files are in order, so the mistake is elsewhere
                self._set_aside(chosen, f"it cannot be read: {_line(error)}")

    def newest(self) -> int | None:
        """Newest step that is not damaged, or None; damaged newer ones are set aside."""
        self.wait()
        while steps := self.steps():
            damage = self._damage(steps[-1])
            if damage is None:
                return steps[-1]
            self._set_aside(steps[-1], damage)
        return None

    def steps(self) -> list[int]:
        """All steps, oldest first; the last one may still be on its way to the disk."""
        return [step for step in sorted(self._manager.all_steps()) if step not in self._damaged]

    def best_step(self) -> int | None:
        """Step with the best metric, the earliest of equals; None where none was evaluated."""
        return self._policy.best(self.steps())

    def meta(self, step: int) -> dict:
        """Read the ``meta`` of a step. Raises UserError if there is none that can be read."""
        self.wait()
        try:
            return store.read_meta(self._manager, step)
        except (OSError, ValueError) as error:
            raise self._not_whole(step, _line(error)) from error

    def wait(self) -> None:
        """Block until the save under way is on disk with its digests; its errors appear here."""
        sealing, self._sealing = self._sealing, None
        try:
            self._manager.wait_until_finished()
            if sealing is not None:
                sealing.result()
        except (OSError, ValueError) as error:
            raise self._not_written(error) from error

    def close(self) -> None:
        """Wait, then give threads and memory back; nothing else may be called after it."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        return store.open_manager(self.directory, self._policy, read_only=self._read_only)

    def _load(self, step: int, template: Any, partial: bool) -> tuple[Any, dict]:
        meta = store.read_meta(self._manager, step)
        target = jax.tree.map(
            store.placed, template(step, meta) if callable(template) else template
        )
        unlike = differences(store.saved_tree(self._manager, step), target, partial=partial)
        if unlike:
            more = f"; and {len(unlike) - 3} more" if len(unlike) > 3 else ""
            raise UserError(
                f"expected a checkpoint of this model in {self.directory / str(step)}, found one "
                f"of another ({'; '.join(unlike[:3])}{more}): use the config it was trained "
                "with, or another --workdir"
            )
        return store.read_state(self._manager, step, target), meta

    def _demand(self, step: int) -> int:
        """Return a step that was asked for by number, if it is there and not damaged."""
        self.wait()
        if step not in self.steps():
            raise self._not_whole(step, "it damaged" if step in self._damaged else "none")
        damage = self._damage(step)
        if damage is not None:
            self._set_aside(step, damage)
            raise self._not_whole(step, f"it damaged ({damage})")
        return step

    def _damage(self, step: int) -> str | None:
        """What process 0 finds wrong with the files of a step; the same verdict everywhere."""
        damage = None
        if jax.process_index() == 0:
            damage = digests.first_damage(self.directory / str(step), self._digest_file(step))
        found = _of_process_0(damage is not None)
        return damage or ("process 0 names the file" if found else None)

    def _set_aside(self, step: int, damage: str) -> None:
        """Take a damaged step out of use and say so; what is left of it is kept."""
        self._damaged.add(step)
        name = "" if self._read_only else f" as {self._rename_damaged(step)}"
        warnings.warn(
            f"the checkpoint of step {step} in {self.directory} is damaged ({damage}): it is left "
            f"aside{name}",
            RuntimeWarning,
            stacklevel=4,
        )

    def _rename_damaged(self, step: int) -> str:
        """Rename a step to a name that Orbax passes over, and look at the folder afresh."""
        self._manager.close()
        count = 1
        if jax.process_index() == 0:
            while (self.directory / _damaged(step, count)).exists():
                count += 1
            name = _damaged(step, count)
            os.rename(self.directory / str(step), self.directory / name)
            if self._digest_file(step).exists():
                os.rename(self._digest_file(step), self._digests / f"{name}.json")
        count = _of_process_0(count)  # also waits for the renaming
        self._manager = self._open()
        return _damaged(step, count)

    def _digest_file(self, step: int) -> Path:
        return self._digests / f"{step}.json"

    def _seal(self, step: int) -> None:
        """On a thread: wait until the step is complete, write its digests, drop old ones."""
        try:
            self._manager.wait_until_finished()
        except Exception:
            return  # the same error reaches the caller of wait(), save() or close()
        digests.write(self.directory / str(step), self._digest_file(step))
        for file in self._digests.glob("*.json"):
            if file.stem.isdigit() and not (self.directory / file.stem).exists():
                file.unlink()

    def _not_written(self, error: Exception) -> UserError:
        free = shutil.disk_usage(self.directory).free
        return UserError(
            f"expected to write a checkpoint of {_megabytes(self._bytes)} to {self.directory}, "
            f"where {_megabytes(free)} are free, found {_line(error)}: make room or mend the disk "
            f"and start again; the steps {self.steps()} are whole"
        )

    def _not_whole(self, step: int, found: str) -> UserError:
        return UserError(
            f"expected a whole checkpoint of step {step} in {self.directory}, found {found}: "
            f"choose one of the steps {self.steps()}"
        )


def _damaged(step: int, count: int) -> str:
    return f"{step}.damaged" if count == 1 else f"{step}.damaged-{count}"


def _of_process_0(value: int) -> int:
    """The value that process 0 gave, in every process of the run."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
