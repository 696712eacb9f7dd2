"""Read weights from the folder of a run, and write one with imported weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from hmgr_jax.data.pictures.pca import Pca
from hmgr_jax.data.text.pieces import vocabulary_from_json
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.trained_run import read_run
from hmgr_jax.files.manifest import ENCODER, ENCODER_PCA
from hmgr_jax.files.workdir import CONFIG, temporary_for, write_json_atomic
from hmgr_jax.interop.picture_encoder import read_description, read_pca, write_description
from hmgr_jax.shapes import Tree
from hmgr_jax.training import config as configs
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.versions import versions

Meta = dict[str, Any]
"""Saved with a state: config, vocabulary, features, steps_per_epoch, fingerprint; and ``imported``
if there is no optimiser state."""


@dataclass(frozen=True)
class Saved:
    """A trained model: its state and its metadata."""

    state: Tree
    """``{"params", "stats", "memory"}``."""
    meta: Meta
    step: int
    encoder: dict[str, Any] | None = None
    """What `ENCODER` of the run describes: the network that made its features of pictures."""
    pca: Pca | None = None
    """The PCA of the outputs of that network."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the texts."""
        return vocabulary_from_json(self.meta["vocabulary"])


def read(workdir: Path) -> Saved:
    """The best step of a run with its state on the host; see `read_run`."""
    run = read_run(workdir)
    encoder = read_description(workdir) if (workdir / ENCODER).is_file() else None
    return Saved(
        jax.device_get(run.state),
        dict(run.meta),
        run.step,
        encoder,
        read_pca(workdir, encoder) if encoder is not None else None,
    )


def write(workdir: Path, saved: Saved) -> None:
    """Make the folder of a run with one checkpoint atomically; raises `UserError` if it exists.

    The run can be evaluated, searched and used as ``init``, but not resumed, since it has no
    optimiser state.
    """
    check_new_folder(workdir)
    with temporary_for(workdir) as temporary:
        temporary.mkdir(parents=True)
        with Checkpoints(temporary / "checkpoints") as checkpoints:
            meta = {**saved.meta, "versions": versions(), "imported": True}
            checkpoints.save(saved.step, saved.state, json.loads(json.dumps(meta)), None)
        write_json_atomic(temporary / CONFIG, configs.plain(saved.meta["config"]))
        if saved.encoder is not None:
            write_description(temporary, saved.encoder)
        if saved.pca is not None:
            saved.pca.write(temporary / ENCODER_PCA)
        check_new_folder(workdir)
        temporary.rename(workdir)


def print_next(workdir: Path) -> None:
    """Print the command that evaluates an imported run."""
    print(
        f"evaluate:  python -m hmgr_jax.main --workdir {workdir} --mode=evaluate "
        "--config.data.root=FOLDER"
    )


def check_new_folder(workdir: Path) -> None:
    """Raise `UserError` unless ``workdir`` is absent or an empty folder."""
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(f"{workdir} exists and is not overwritten: give the name of a new folder.")
