"""The training loop: resume, step, log, evaluate and save, independent of the model."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
from ml_collections import ConfigDict

from hmgr_jax.data.pipeline import batches, stop_workers_on_close
from hmgr_jax.data.text.captions import unknown_shares
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.distributed import hosts, watchdog
from hmgr_jax.distributed.parallel import place, replicate, shard
from hmgr_jax.distributed.preemption import StopSignal
from hmgr_jax.errors import UserError
from hmgr_jax.files import digests
from hmgr_jax.files.manifest import keep_encoder
from hmgr_jax.files.workdir import CONFIG, RESULTS, lock, write_json_atomic
from hmgr_jax.models.base import Variables
from hmgr_jax.progress import Progress
from hmgr_jax.shapes import Tree
from hmgr_jax.training import bad_batches, resume
from hmgr_jax.training import config as configs
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import Experiment, build
from hmgr_jax.training.optimizer import Stage
from hmgr_jax.training.pretrained import runs_and_files
from hmgr_jax.training.records import MetricLog
from hmgr_jax.training.step import State
from hmgr_jax.training.tables import RunTables, keep_tables
from hmgr_jax.training.token_states import token_states
from hmgr_jax.training.versions import versions

Results = dict[str, Any]
PLATEAU_WIDTH = 0.01
"""A loss is at its plateau within this share of it."""
PLATEAU_STEPS = 100
TOLD = -1
"""Stands for the first step at the plateau once the message is printed."""


class Evaluation(Protocol):
    """The evaluation of a run, passed to the loop by the command (`hmgr_jax.modes`)."""

    def on_dev(self, variables: Variables) -> dict[str, float]:
        """Metrics of the dev split."""
        ...

    def finish(self, checkpoints: Checkpoints, tables: Tree) -> Results:
        """Metrics of the selected step on test, written to the folder of the run."""
        ...


@dataclass(frozen=True)
class Parts:
    """The experiment of a run, its evaluation and its tables."""

    experiment: Experiment
    evaluation: Evaluation
    tables: RunTables


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    evaluate: Callable[[Experiment, Path], Evaluation],
    make_tables: Callable[[Experiment, Path], RunTables],
) -> Results | None:
    """Train in ``workdir``, or resume an interrupted run there.

    Args:
        config: the configuration of the run.
        workdir: the folder of the run.
        evaluate: builds the evaluation; refuses protocols that do not fit the data.
        make_tables: builds the constant tables of the model.

    Returns:
        the results of the run, or None if SIGTERM or Ctrl-C stopped it after saving.

    Raises:
        UserError: invalid data or configuration, a workdir in use or of another run, or a loss that
            stays non-finite.
    """

    def build_parts(vocabulary: Vocabulary | None = None) -> Parts:
        if vocabulary is None:  # a new run; a resumed run no longer needs these files
            runs_and_files(config.init)
        experiment = build(config, vocabulary)
        evaluation = evaluate(experiment, workdir)
        return Parts(experiment, evaluation, make_tables(experiment, workdir))

    with (
        watchdog.Watchdog(config.train.hang_seconds, workdir),
        hosts.enter_on_first(lambda: lock(workdir)),
        StopSignal() as stop,
    ):
        folder = workdir / "checkpoints"
        # Find invalid data of a new run before anything is written.
        new = None if folder.is_dir() else build_parts()
        with Checkpoints(folder) as checkpoints:
            saved = resume.find(checkpoints, config, workdir)
            parts = new or build_parts(saved.vocabulary if saved else None)
            if not _Run(parts, workdir, checkpoints, stop, saved).run_to_end():
                return None
            return parts.evaluation.finish(checkpoints, parts.tables.test)


class _Run:
    """One run of the loop, from the newest checkpoint or step 0 to the last step."""

    def __init__(
        self,
        parts: Parts,
        workdir: Path,
        checkpoints: Checkpoints,
        stop: StopSignal,
        saved: resume.Saved | None,
    ) -> None:
        experiment, tables = parts.experiment, parts.tables
        self.experiment, self.workdir, self.stop = experiment, workdir, stop
        self.checkpoints, self.config = checkpoints, experiment.config
        self.evaluation = parts.evaluation
        self.seen: dict[str, int] = {}
        if saved:
            resume.check_same_data(saved, experiment)
            resume.warn_of_summed_losses(saved, experiment.model)
            state, meta, self.start = checkpoints.restore(experiment.abstract_state(), saved.step)
            own = {str(meta["steps_per_epoch"]): self.start}  # of runs before 2026-12
            self.seen = dict(meta.get("seen", own))
        else:
            state, self.start = experiment.first_state(), 0
        hosts.check_same(
            configuration=configs.config_hash(self.config),
            vocabulary=experiment.data.vocabulary.saved(),
            data=experiment.data.fingerprint,
            state=state,
            tables=tables.train,
        )
        split = bool(experiment.model.split_slots)
        self.state: State = place(experiment.mesh, state, split_memory=split)
        self.tables = replicate(experiment.mesh, tables.train)
        same = tables.test is tables.train
        self.test_tables = self.tables if same else replicate(experiment.mesh, tables.test)
        self.plateau_since: int | None = None
        self.log = MetricLog(workdir, kept=hosts.is_first())
        if hosts.is_first():
            if experiment.model.needs_tables:
                keep_tables(workdir, tables.train)
            keep_encoder(self.config.data.root, workdir)
            # Launchers would take the results of a shorter run for the end of this run.
            (workdir / RESULTS).unlink(missing_ok=True)
            write_json_atomic(workdir / CONFIG, configs.plain(self.config))
            if saved:
                self.log.check(saved.meta.get("metrics"))
            self.log.cut_after(self.start if saved else -1)
            digests.write_run(workdir)

    def run_to_end(self) -> bool:
        """Train until the last step (True) or until a signal (False)."""
        t, epoch = self.config.train, self.experiment.plan.steps_per_epoch
        self._describe()
        stream = self._batches()
        self.progress = Progress(
            t.steps,
            "step",
            done=self.start,
            items=t.batch_size,
            steps_per_epoch=epoch,
            epochs_before=self.seen_epochs(self.start),
            shown=hosts.is_first(),
        )
        with self.progress, contextlib.closing(self.log):
            for step, stage, entered in _schedule(self.experiment.stages(), self.start, t.steps):
                if entered:
                    advance = self.experiment.step_function(stage)
                    self._enter_stage(stage, step)
                watchdog.report_progress(compiling=entered)
                self.state, report = advance(self.state, self.tables, next(stream))
                done = step + 1
                self.progress.update(done)
                last = done == t.steps
                if last or done % t.log_steps == 0:
                    self._log(done, report)
                if done == epoch:
                    self._print_first_epoch_message(report)
                due = last or done % (t.eval_steps or epoch) == 0
                metric = self._evaluate(done) if due else None
                # Read once: a signal may arrive at any time.
                stopping = self.stop.now() and not last
                if due or stopping or (t.save_steps and done % t.save_steps == 0):
                    self._save(done, metric)
                if stopping:
                    self.checkpoints.wait()
                    self.progress.say(
                        f"Stopped by {self.stop.name} after step {done}, which is saved: run the "
                        "same command to resume."
                    )
                    return False
        return True

    def seen_epochs(self, step: int) -> float:
        """Epochs of the data read up to ``step``; earlier ones may have had other batches."""
        return sum(n / int(epoch) for epoch, n in self._seen(step).items())

    def _seen(self, step: int) -> dict[str, int]:
        """{steps per epoch: steps made with batches of that size} up to ``step``."""
        own = str(self.experiment.plan.steps_per_epoch)
        return {**self.seen, own: self.seen.get(own, 0) + step - self.start}

    def _batches(self) -> Iterator[dict[str, Any]]:
        """Batches on the devices, from step ``start`` on."""
        config, experiment = self.config, self.experiment
        add_states = token_states(experiment, self.state.params) or (lambda batch: batch)
        stream = batches(
            experiment.data.splits["train"],
            batch_size=config.train.batch_size,
            seed=config.seed,
            steps=config.train.steps,
            start=self.start,
            pad_to=experiment.mesh.devices.size,
            process=hosts.process_share(),
            buckets=config.data.buckets,
            threads=config.data.threads,
            workers=config.data.get("workers", 0),
            batching=config.data.batching,
        )
        return (
            shard(experiment.mesh, experiment.for_model(add_states(batch)))
            for batch in stop_workers_on_close(stream)
        )

    def _enter_stage(self, stage: Stage, step: int) -> None:
        """Enter a stage; a fresh optimiser starts only at the first step of a stage."""
        stages = self.experiment.stages()
        starts = _first_steps(stages)
        if not step or step not in starts:
            return
        # Zero moments of a part that was frozen would cause large first steps.
        thawed = _frozen_parts(stages[starts.index(step) - 1]) - _frozen_parts(stage)
        if stage.fresh_optimizer or thawed:
            fresh = self.experiment.optimizer(stage).init(self.state.params)
            self.state = self.state.replace(  # type: ignore[attr-defined]
                optimizer=replicate(self.experiment.mesh, fresh)
            )

    def _log(self, step: int, report: Mapping[str, jax.Array]) -> None:
        """Write a row of this step's values; only here does the loop wait for the device."""
        row = {name: float(value) for name, value in report.items()}
        in_a_row, total = int(row.pop("bad_in_a_row")), int(row.pop("bad_total"))
        if total:
            row["bad_steps"] = total
        self.log.write(step, {k: v for k, v in row.items() if math.isfinite(v)})
        self.progress.update(step, row["loss"])
        self._watch_plateau(step, row)
        if self.progress.items_per_second is not None:
            self.log.write_timing(step, {"items_per_second": self.progress.items_per_second})
        if in_a_row >= self.config.train.max_bad_steps:
            bad = range(step - in_a_row + 1, step + 1)
            file = bad_batches.write(self.workdir, self.experiment, bad)
            raise UserError(
                f"The loss or its gradient was not finite for {in_a_row} steps in a row up to step "
                f"{step}; their updates were discarded: lower train.lr, or look for extreme values "
                f"in the features of the items listed in {file}."
            )

    def _watch_plateau(self, step: int, row: Mapping[str, float]) -> None:
        """Say once that the hinges have been those of equal scores for `PLATEAU_STEPS` steps."""
        plateau = row.get("plateau", 0.0)
        if not plateau or not abs(row["triplet"] / plateau - 1.0) <= PLATEAU_WIDTH:  # or NaN
            self.plateau_since = None if self.plateau_since != TOLD else TOLD
        elif self.plateau_since is None:
            self.plateau_since = step
        elif 0 <= self.plateau_since <= step - PLATEAU_STEPS:
            self.progress.say(
                f"The triplet loss has been {row['triplet']:.4g} since step {self.plateau_since}, "
                "which is the loss of a model that gives all pairs the same score: if it stays "
                "there, lower train.lr, raise train.warmup_steps, or set model.objective=infonce."
            )
            self.plateau_since = TOLD

    def _print_first_epoch_message(self, report: Mapping[str, jax.Array]) -> None:
        """Print the model's optional message after the first epoch."""
        values = {k: float(v) for k, v in report.items()}
        message = self.experiment.model.first_epoch_message(values)
        if message:
            self.progress.say(f"After the first epoch: {message}")

    def _evaluate(self, step: int) -> float:
        """Evaluate on dev and log a row; returns the metric that selects the best step."""
        metrics = self.evaluation.on_dev(self.state.variables(self.test_tables))
        self.log.write(step, {f"dev/{name}": value for name, value in metrics.items()})
        shown = {k: v for k, v in metrics.items() if not k.endswith(("meanR", "medR"))}
        self.progress.say(
            f"dev after step {step}: " + "  ".join(f"{k} {v:.1f}" for k, v in shown.items())
        )
        self.progress.restart_clock()
        return metrics[self.config.eval.select]

    def _save(self, step: int, metric: float | None) -> None:
        meta = {
            "config": configs.plain(self.config),
            "vocabulary": self.experiment.data.vocabulary.saved(),
            "fingerprint": self.experiment.data.fingerprint,
            "features": self.experiment.plan.features,
            "classes": self.experiment.plan.classes,
            "steps_per_epoch": self.experiment.plan.steps_per_epoch,
            "seen": self._seen(step),
            "rows": self.experiment.plan.rows,
            "versions": versions(),
            "metrics": self.log.digest(),
            "losses": resume.LOSSES,
        }
        self.checkpoints.save(step, self.state, json.loads(json.dumps(meta)), metric)

    def _describe(self) -> None:
        if not hosts.is_first():
            return
        e, t = self.experiment, self.config.train
        sizes = ", ".join(f"{len(s)} {name} rows" for name, s in e.data.splits.items())
        parameters = sum(x.size for x in jax.tree.leaves(self.state.params))
        epochs = self.seen_epochs(t.steps)
        title = f"{self.config.model.name} on {configs.data_name(self.config)}"
        print(
            f"{title}: {parameters:,} parameters; {sizes}; "
            f"{t.steps} steps of {t.batch_size} rows, {epochs:.1f} epochs, "
            f"on {e.mesh.devices.size} {jax.devices()[0].device_kind} device(s)"
            + (f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""),
            flush=True,
        )
        if unknown := unknown_shares(e.data.splits):
            print(f"Unknown words: {unknown}.", flush=True)
        if missing := e.goes_without():
            print(missing, flush=True)
        if self.start:
            print(f"Resuming after step {self.start} of {self.workdir}.", flush=True)


def _frozen_parts(stage: Stage) -> set[str]:
    """Parts whose parameters do not change in a stage."""
    return {*stage.frozen, *(part for part, factor in stage.lr_factors.items() if factor == 0)}


def _first_steps(stages: tuple[Stage, ...]) -> list[int]:
    """The first step of every stage."""
    starts = [0]
    for stage in stages[:-1]:
        starts.append(starts[-1] + stage.steps)
    return starts


def _schedule(
    stages: tuple[Stage, ...], start: int, steps: int
) -> Iterator[tuple[int, Stage, bool]]:
    """(step, its stage, whether it enters the stage) from ``start``; the last stage has no end."""
    starts = _first_steps(stages)
    current = None
    for step in range(start, steps):
        index = max(i for i, first in enumerate(starts) if first <= step)
        yield step, stages[index], index != current
        current = index
