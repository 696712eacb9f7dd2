"""What a run folder holds already, and whether a configuration may go on from there."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.data.text.pieces import vocabulary_from_json
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import RESULTS
from hmgr_jax.training import config as configs
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import Experiment


@dataclass(frozen=True)
class Saved:
    """The newest whole checkpoint of a run that was interrupted."""

    step: int
    meta: dict[str, Any]

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that the run was begun with."""
        return vocabulary_from_json(self.meta["vocabulary"])


def find(checkpoints: Checkpoints, config: ConfigDict, workdir: Path) -> Saved | None:
    """The checkpoint that ``config`` goes on from in ``workdir``; None begins anew.

    Says what differs from the configuration that was saved.

    Raises:
        UserError: to begin or go on would lose what is there, or would mix two runs.
    """
    step = checkpoints.newest()
    if step is None:
        _check_nothing_to_lose(checkpoints, config, workdir)
        return None
    saved = Saved(step, checkpoints.meta(step))
    _check_trained_here(saved, workdir)
    _check_same_run(saved, config, workdir)
    return saved


def check_same_data(saved: Saved, experiment: Experiment) -> None:
    """Refuse to go on with other data than before.

    Raises:
        UserError: the fingerprints differ.
    """
    if saved.meta["fingerprint"] != experiment.data.fingerprint:
        raise UserError(
            "The data is not the data that this run was trained on (its fingerprint differs): put "
            "the same files at data.root, or give another --workdir."
        )


def _check_nothing_to_lose(checkpoints: Checkpoints, config: ConfigDict, workdir: Path) -> None:
    damaged = sorted(path.name for path in checkpoints.directory.glob("*.damaged*"))
    if damaged:
        raise UserError(
            f"Every checkpoint in {checkpoints.directory} is damaged ({', '.join(damaged)}), so "
            "this run cannot go on: restore them from a copy, or give another --workdir to begin "
            "anew."
        )
    if (workdir / RESULTS).is_file():
        raise UserError(
            f"{workdir} holds the results of a finished run of another configuration and no "
            "checkpoint to go on from: give another --workdir."
        )
    begun, rows = workdir / "config.json", workdir / "metrics.jsonl"
    if not begun.is_file() or not rows.is_file() or not rows.stat().st_size:
        return
    changed = configs.differences(json.loads(begun.read_bytes()), configs.plain(config))
    if changed:
        raise UserError(
            f"{workdir} holds the first steps of a run of another configuration "
            f"({configs.format_differences(changed)}): give another --workdir, or "
            "remove the folder."
        )


def _check_trained_here(saved: Saved, workdir: Path) -> None:
    if saved.meta.get("imported"):
        raise UserError(
            f"{workdir} holds imported weights, which have no optimiser state to go on with: give "
            f"another --workdir and start there from these, as --config.init.PART={workdir} for "
            "each part that --mode=show lists."
        )


def _check_same_run(saved: Saved, config: ConfigDict, workdir: Path) -> None:
    changed = configs.differences(saved.meta["config"], configs.plain(config))
    for key, what in (
        ("model.name", "system"),
        ("seed", "seed"),
        ("eval.select", "eval.select"),
    ):
        if key in changed:
            old, new = changed[key]
            raise UserError(
                f"{workdir} holds a run of another {what} ({old!r}, not {new!r}): give another "
                "--workdir."
            )
    if not changed:
        return
    listed = configs.format_differences(changed)
    if saved.step >= config.train.steps:
        raise UserError(
            f"The run in {workdir} has made {saved.step} steps of {config.train.steps}, so nothing "
            f"is left to train with a changed configuration ({listed}): raise train.steps, use "
            "--mode=evaluate to evaluate otherwise, or give another --workdir."
        )
    warnings.warn(f"the configuration differs from the saved one: {listed}", stacklevel=2)
