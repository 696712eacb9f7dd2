"""The training loop: it resumes, steps, logs, evaluates and saves, and knows no model by name."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from hmgr_jax.data.pipeline import batches
from hmgr_jax.data.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.training import config as configs
from hmgr_jax.training import results
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.evaluate import Evaluator
from hmgr_jax.training.experiment import Experiment, build
from hmgr_jax.training.optimizer import Stage
from hmgr_jax.training.parallel import replicate, shard
from hmgr_jax.training.preemption import StopSignal
from hmgr_jax.training.progress import Progress
from hmgr_jax.training.records import MetricLog
from hmgr_jax.training.state import State
from hmgr_jax.training.workdir import lock, write_json_atomic

Results = dict[str, Any]


def train(config: ConfigDict, workdir: Path) -> Results | None:
    """Train in ``workdir``, or go on with what was interrupted there.

    Returns:
        the results of the finished run (at once where it had finished before), or None when a
        SIGTERM or Ctrl-C stopped it after saving.

    Raises:
        UserError: bad data or configuration, a workdir in use or of another model, or a loss that
            stays non-finite.
    """
    with lock(workdir), StopSignal() as stop:
        done = results.finished(workdir, config)
        if done:
            return done
        folder = workdir / "checkpoints"
        # Bad data of a new run is found before anything is written.
        fresh = None if folder.is_dir() else build(config)
        with Checkpoints(folder) as checkpoints:
            run = _Run(config, workdir, checkpoints, stop, fresh)
            if not run.to_the_end():
                return None
            return results.finish(run.experiment, run.evaluator, checkpoints, workdir)


class _Run:
    """One run of the loop, from the newest checkpoint (or the beginning) to its end."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        checkpoints: Checkpoints,
        stop: StopSignal,
        fresh: Experiment | None,
    ) -> None:
        self.config, self.workdir, self.stop = config, workdir, stop
        self.checkpoints = checkpoints
        newest = checkpoints.newest()
        saved = checkpoints.meta(newest) if newest is not None else None
        words = Vocabulary(tuple(saved["vocabulary"])) if saved else None
        self.experiment = fresh or build(config, words)
        self.evaluator = Evaluator(
            self.experiment.model,
            self.experiment.mesh,
            batch_size=config.eval.batch_size,
            tile=config.eval.tile,
            buckets=config.data.buckets,
        )
        results.check_protocols(self.experiment)
        if saved:
            _compare(saved, self.experiment)
            state, _, self.start = checkpoints.restore(self.experiment.abstract_state())
        else:
            state, self.start = self.experiment.first_state(), 0
            write_json_atomic(workdir / "config.json", configs.plain(config))
        self.state: State = replicate(self.experiment.mesh, state)
        self.log = MetricLog(workdir)
        self.log.cut_after(self.start if saved else -1)

    def to_the_end(self) -> bool:
        """Train until the last step (True) or until asked to stop (False)."""
        t, plan = self.config.train, self.experiment.plan
        self._describe()
        stream = iter(
            batches(
                self.experiment.data.splits["train"],
                batch_size=t.batch_size,
                seed=self.config.seed,
                steps=t.steps,
                start=self.start,
                pad_to=self.experiment.mesh.devices.size,
                buckets=self.config.data.buckets,
                threads=self.config.data.threads,
                batching=self.config.data.batching,
            )
        )
        epoch = plan.steps_per_epoch
        with Progress(
            t.steps, items=t.batch_size, steps_per_epoch=epoch, first_step=self.start
        ) as self.progress:
            for step, stage, entered in _schedule(self.experiment.stages(), self.start, t.steps):
                if entered:
                    advance = self.experiment.step_function(stage)
                    self._enter(stage, step)
                batch = self.experiment.for_model(next(stream))
                self.state, report = advance(
                    self.state, None, shard(self.experiment.mesh, batch)
                )
                done = step + 1
                if done % t.log_steps == 0 or done == t.steps:
                    self._log(done, report)
                due = done % (t.eval_steps or epoch) == 0 or done == t.steps
                metric = self._evaluate(done) if due else None
                if due or self.stop.requested or (t.save_steps and done % t.save_steps == 0):
                    self._save(done, metric)
                if self.stop.requested and done < t.steps:
                    self.checkpoints.wait()
                    self.progress.say(
                        f"Stopped by {self.stop.name} after step {done}, which is saved: the same "
                        "command goes on from there."
                    )
                    self.log.close()
                    return False
        self.log.close()
        return True

    def _enter(self, stage: Stage, step: int) -> None:
        """Begin a stage; only its very first step may start the optimiser afresh."""
        first = step in _starts(self.experiment.stages())
        if stage.fresh_optimizer and first and step:
            fresh = self.experiment.optimizer(stage).init(self.state.params)
            self.state = self.state.replace(  # type: ignore[attr-defined]
                optimizer=replicate(self.experiment.mesh, fresh)
            )

    def _log(self, step: int, report: Mapping[str, jax.Array]) -> None:
        """The one place where the loop waits for the device: a row of this step's values."""
        row = {name: float(value) for name, value in report.items()}
        in_a_row, total = int(row.pop("bad_in_a_row")), int(row.pop("bad_total"))
        if total:
            row["bad_steps"] = total
        self.log.write(step, {k: v for k, v in row.items() if math.isfinite(v)})
        self.progress.update(step, row["loss"])
        if self.progress.items_per_second is not None:
            self.log.write_timing(step, {"items_per_second": self.progress.items_per_second})
        if in_a_row >= self.config.train.max_bad_steps:
            raise UserError(
                f"The loss or its gradient was not finite for {in_a_row} steps in a row up to step "
                f"{step}; nothing of them was kept. Lower train.lr, or look for extreme features "
                "with --mode=show."
            )

    def _evaluate(self, step: int) -> float:
        """A row of dev metrics; returns the one by which the best step is chosen."""
        splits = self.experiment.data.splits
        variables = self.evaluator.finalized(self.state.variables(None), splits["train"])
        metrics = self.evaluator.metrics(variables, splits["dev"], self.config.eval.dev_protocols)
        select = self.config.eval.select
        if select not in metrics:
            raise UserError(f"eval.select is {select!r}, but dev has only {', '.join(metrics)}.")
        self.log.write(step, {f"dev/{name}": value for name, value in metrics.items()})
        shown = "  ".join(f"{k} {v:.1f}" for k, v in metrics.items() if "mea" not in k and "med" not in k)
        self.progress.say(f"dev after step {step}: {shown}")
        self.progress.restart_clock()
        return metrics[select]

    def _save(self, step: int, metric: float | None) -> None:
        if step == self.start:
            return
        meta = {
            "config": configs.plain(self.config),
            "vocabulary": list(self.experiment.data.vocabulary.words),
            "fingerprint": self.experiment.data.fingerprint,
            "features": self.experiment.plan.features,
            "steps_per_epoch": self.experiment.plan.steps_per_epoch,
            "versions": results.versions(),
        }
        self.checkpoints.save(step, self.state, json.loads(json.dumps(meta)), metric)

    def _describe(self) -> None:
        e, t = self.experiment, self.config.train
        sizes = ", ".join(f"{len(s)} {name} rows" for name, s in e.data.splits.items())
        parameters = sum(x.size for x in jax.tree.leaves(self.state.params))
        print(
            f"{self.config.model.name} on {self.config.name}: {parameters:,} parameters; {sizes}; "
            f"{t.steps} steps of {t.batch_size} rows ({t.steps / e.plan.steps_per_epoch:.1f} epochs) "
            f"on {e.mesh.devices.size} {jax.devices()[0].device_kind} device(s)",
            flush=True,
        )
        if self.start:
            print(f"Going on after step {self.start} of {self.workdir}.", flush=True)


def _starts(stages: tuple[Stage, ...]) -> list[int]:
    """The first step of every stage."""
    starts = [0]
    for stage in stages[:-1]:
        starts.append(starts[-1] + stage.steps)
    return starts


def _schedule(stages: tuple[Stage, ...], start: int, steps: int) -> Any:
    """(step, its stage, whether a step function must be made) from ``start``; the last extends."""
    starts = _starts(stages)
    current = None
    for step in range(start, steps):
        index = max(i for i, first in enumerate(starts) if first <= step)
        yield step, stages[index], index != current
        current = index


def _compare(saved: Mapping[str, Any], experiment: Experiment) -> None:
    """Refuse other data; say what else differs from the run that is resumed."""
    if saved["fingerprint"] != experiment.data.fingerprint:
        raise UserError(
            "The data is not the data that this run was trained on (its fingerprint differs): put "
            "the same files at data.root, or give another --workdir."
        )
    changed = configs.differences(saved["config"], configs.plain(experiment.config))
    if changed:
        listed = "; ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in changed.items())
        warnings.warn(f"the configuration differs from the saved one: {listed}", stacklevel=2)
