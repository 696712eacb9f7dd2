"""The run folder of a CLIP or SigLIP as it is, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hmgr_jax.conversion import run_folder
from hmgr_jax.conversion.run_folder import Saved
from hmgr_jax.evaluation.tower_folder import read_folder


def import_towers(
    folder: Path, workdir: Path, recipe: str, overrides: Mapping[str, str | None]
) -> None:
    """Make the run folder ``workdir`` from a folder, which the run needs no longer.

    The other arguments are those of `read_folder`.

    Raises:
        UserError: ``workdir`` exists, or the folder cannot be read.
    """
    run_folder.check_new_folder(workdir)
    run = read_folder(folder, recipe=recipe, overrides=overrides)
    run_folder.write(workdir, Saved(run.state, dict(run.meta), run.step))
    print(f"imported:  {folder} into {workdir}")
    run_folder.print_next(workdir)
