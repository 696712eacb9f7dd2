"""Find the checkpoint to resume from, and check that the configuration fits it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.data.text.pieces import vocabulary_from_json
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import read_object
from hmgr_jax.files.workdir import CONFIG, RESULTS
from hmgr_jax.models.base import Model
from hmgr_jax.training import config as configs
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import Experiment
from hmgr_jax.training.records import METRICS

LOSSES = "per row"
"""How checkpoints say that terms of losses are means; without it they may be sums of the batch."""


@dataclass(frozen=True)
class Saved:
    """The newest complete checkpoint of an interrupted run."""

    step: int
    meta: dict[str, Any]

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the run."""
        return vocabulary_from_json(self.meta["vocabulary"])


def find(checkpoints: Checkpoints, config: ConfigDict, workdir: Path) -> Saved | None:
    """The checkpoint in ``workdir`` that ``config`` resumes from; None starts a new run.

    Warns of differences to the saved configuration.

    Raises:
        UserError: results would be lost, or two runs would be mixed.
    """
    step = checkpoints.newest()
    if step is None:
        _check_nothing_is_lost(checkpoints, config, workdir)
        return None
    saved = Saved(step, checkpoints.meta(step))
    if saved.meta.get("imported"):
        raise UserError(
            f"{workdir} holds imported weights without optimiser state, so it cannot be resumed: "
            f"give another --workdir and start from these weights with --config.init.PART={workdir}"
            " for each part that --mode=show lists."
        )
    _check_same_run(saved, config, workdir)
    return saved


def check_same_data(saved: Saved, experiment: Experiment) -> None:
    """Raise `UserError` if the fingerprint of the data has changed."""
    if saved.meta["fingerprint"] != experiment.data.fingerprint:
        raise UserError(
            "The data is not the data that this run was trained on (its fingerprint differs): put "
            "the original files at data.root, or give another --workdir."
        )


def warn_of_summed_losses(saved: Saved, model: Model) -> None:
    """Warn if the rows of metrics so far are of a version that logged sums over the batch."""
    if model.summed and saved.meta.get("losses") != LOSSES:
        warnings.warn(
            f"up to step {saved.step} {METRICS} may hold sums over the batch, as older versions "
            f"logged them; from here on these are means per row: {', '.join(sorted(model.summed))}",
            stacklevel=2,
        )


def _check_nothing_is_lost(checkpoints: Checkpoints, config: ConfigDict, workdir: Path) -> None:
    damaged = sorted(path.name for path in checkpoints.directory.glob("*.damaged*"))
    if damaged:
        raise UserError(
            f"Every checkpoint in {checkpoints.directory} is damaged ({', '.join(damaged)}), so "
            "this run cannot be resumed: restore them from a copy, or give another --workdir."
        )
    if (workdir / RESULTS).is_file():
        raise UserError(
            f"{workdir} holds the results of a finished run of another configuration and no "
            "checkpoint to resume from: give another --workdir."
        )
    begun, rows = workdir / CONFIG, workdir / METRICS
    if not begun.is_file() or not rows.is_file() or not rows.stat().st_size:
        return
    saved = read_object(
        begun, "restore it from a copy, give another --workdir, or remove the folder."
    )
    changed = configs.differences(saved, configs.plain(config))
    if changed:
        raise UserError(
            f"{workdir} holds the first steps of a run of another configuration "
            f"({configs.format_differences(changed)}): give another --workdir, or "
            "remove the folder."
        )


def _check_same_run(saved: Saved, config: ConfigDict, workdir: Path) -> None:
    changed = configs.differences(saved.meta["config"], configs.plain(config))
    for key in ("model.name", "seed", "eval.select"):
        if key in changed:
            old, new = changed[key]
            raise UserError(
                f"{workdir} holds a run with another {key} ({old!r}, not {new!r}): give another "
                "--workdir."
            )
    if not changed:
        return
    listed = configs.format_differences(changed)
    if saved.step >= config.train.steps:
        raise UserError(
            f"The run in {workdir} has made {saved.step} of {config.train.steps} steps, so no step "
            f"is left to train with a changed configuration ({listed}): raise train.steps, use "
            "--mode=evaluate for another evaluation, or give another --workdir."
        )
    warnings.warn(f"the configuration differs from the saved one: {listed}", stacklevel=2)
