"""Checkpoints of a run: saved in the background and verified when read; the best one is kept."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from hmgr_jax.errors import UserError
from hmgr_jax.files import digests
from hmgr_jax.leaves import differences
from hmgr_jax.training.best_step import NewestAndBest
from hmgr_jax.training.orbax_folder import OrbaxFolder, placed


class Checkpoints:
    """The checkpoints of one run in ``directory``, a folder each, named by their step.

    A checkpoint is a state (any pytree of arrays) with a JSON object ``meta`` and, if the model was
    evaluated at that step, a metric (higher is better). The newest ``keep`` checkpoints and the one
    with the best metric are kept. The metric and digests of the files are written to
    ``directory/../digests/STEP.json`` when a step is complete; a step without digests is used with
    a warning. A damaged step is never deleted: it is renamed ``STEP.damaged``.

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
        self._policy = NewestAndBest(keep)
        self._damaged: set[int] = set()
        self._verified: set[int] = set()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digests")
        self._sealing: Future | None = None
        self._bytes = 0  # of the state saved last
        self._folder = self._open()

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
        try:
            saved = self._folder.save(step, state, meta, value)
        except OSError as error:
            raise self._not_written(error) from error
        if not saved:
            raise RuntimeError(f"step {step} was not saved: Orbax declined it")
        self._damaged.discard(step)
        self._verified.discard(step)
        if jax.process_index() == 0:
            self._sealing = self._pool.submit(self._seal, step)

    def restore(
        self,
        template_state: Any,
        step: int | None = None,
        *,
        best: bool = False,
        partial: bool = False,
    ) -> tuple[Any, dict, int]:
        """Read a checkpoint: (state, meta, step); by default the newest undamaged one.

        ``best`` reads the best undamaged step instead, see `best`.

        ``template_state`` is a pytree of arrays or ShapeDtypeStructs that sets containers and
        shardings (none: the first device), or a function of (step, meta) that returns one. With
        ``partial`` it may be a part of the saved state, such as ``{"params": ...}`` to serve.
        Names, shapes and dtypes must equal those of the checkpoint.

        A damaged step is set aside with a warning and the step before it, or the next best one, is
        read. Raises UserError if no step is left, if the step with the number ``step`` is damaged
        or absent, or if another model saved it.
        """
        while True:
            if step is not None:
                chosen: int | None = self._check_undamaged(step)
            else:
                chosen = self.best() if best else self.newest()
            if chosen is None:
                raise UserError(
                    f"{self.directory} holds no complete checkpoint: train a model there first."
                )
            try:
                return *self._load(chosen, template_state, partial), chosen
            except UserError:
                raise
            except Exception as error:
                verified = digests.read(self._digest_file(chosen)) is not None
                if verified or self._folder.is_readable(chosen):
                    raise  # the files are intact, so the error is elsewhere
                self._set_aside(chosen, f"it cannot be read: {_line(error)}")

    def newest(self) -> int | None:
        """Newest undamaged step, or None; damaged newer steps are set aside."""
        return self._first_undamaged(lambda: max(self.steps(), default=None))

    def best(self) -> int | None:
        """Undamaged step with the best metric; the newest one without an evaluation.

        Damaged better steps are set aside. Warns if a better step was saved but is not there.
        """
        step = self._first_undamaged(self.best_step)
        if step is None:
            step = self.newest()
        if step is not None and jax.process_index() == 0:
            self._policy.warn_of_better(step, self._digests)
        return step

    def _first_undamaged(self, choose: Callable[[], int | None]) -> int | None:
        """What ``choose`` returns once all damaged steps that it returns are set aside."""
        self.wait()
        while (step := choose()) is not None:
            damage = self._damage(step)
            if damage is None:
                break
            self._set_aside(step, damage)
        return step

    def steps(self) -> list[int]:
        """All steps, oldest first; the last one may still be written."""
        return [step for step in self._folder.steps() if step not in self._damaged]

    def best_step(self) -> int | None:
        """Step with the best metric, the earliest of equals; None without an evaluation."""
        return self._policy.best(self.steps())

    def meta(self, step: int) -> dict:
        """Read the ``meta`` of a step. Raises UserError if it is absent or unreadable."""
        self.wait()
        try:
            return self._folder.meta(step)
        except (OSError, ValueError) as error:
            raise self._not_whole(step, _line(error)) from error

    def wait(self) -> None:
        """Block until the save in progress and its digests are on disk; raises its errors."""
        sealing, self._sealing = self._sealing, None
        try:
            self._folder.wait()
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
            self._folder.close()

    def _open(self) -> OrbaxFolder:
        """Open the folder and read the metrics of its steps."""
        found = OrbaxFolder(self.directory, self._policy, read_only=self._read_only)
        for step in found.steps():
            self._policy.read(found, step, digests.read(self._digest_file(step)))
        return found

    def _load(self, step: int, template: Any, partial: bool) -> tuple[Any, dict]:
        meta = self._folder.meta(step)
        target = jax.tree.map(placed, template(step, meta) if callable(template) else template)
        unlike = differences(self._folder.tree(step), target, partial=partial)
        if unlike:
            more = f"; and {len(unlike) - 3} more" if len(unlike) > 3 else ""
            raise UserError(
                f"{self.directory / str(step)} is a checkpoint of another model "
                f"({'; '.join(unlike[:3])}{more}): use the configuration it was trained with, or "
                "another --workdir."
            )
        return self._folder.state(step, target), meta

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
        """The damage that process 0 finds in the files of a step; equal in every process.

        Warns of a step whose digests are missing or damaged.
        """
        if step in self._verified:  # hashing gigabytes once is enough
            return None
        damage = None
        if jax.process_index() == 0:
            known = digests.read(self._digest_file(step))
            if known is None:
                warnings.warn(
                    f"the checkpoint of step {step} in {self.directory} is not verified: "
                    f"{self._digest_file(step)} is missing or damaged",
                    RuntimeWarning,
                    stacklevel=4,
                )
            else:
                damage = digests.first_damage(self.directory / str(step), known["files"])
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
        self._folder.close()
        count = 1
        if jax.process_index() == 0:
            while (self.directory / (name := _damaged(step, count))).exists():
                count += 1
            os.rename(self.directory / str(step), self.directory / name)
            if self._digest_file(step).exists():
                os.rename(self._digest_file(step), self._digests / f"{name}.json")
        count = _of_process_0(count)  # also waits for the rename
        self._folder = self._open()
        return _damaged(step, count)

    def _digest_file(self, step: int) -> Path:
        return self._digests / f"{step}.json"

    def _seal(self, step: int) -> None:
        """On a thread: wait until the step is complete, write its digests, drop old ones."""
        try:
            self._folder.wait()
        except Exception:
            return  # wait(), save() or close() raises the same error
        metric = self._policy.metrics[step]
        digests.write(self.directory / str(step), self._digest_file(step), metric=metric)
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
