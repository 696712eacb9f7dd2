"""The run folder of a CLIP or SigLIP as it is, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hmgr_jax.conversion import run_folder
from hmgr_jax.conversion.run_folder import Meta, Saved
from hmgr_jax.evaluation.trained_run import saved_model, state_shapes
from hmgr_jax.interop import clip
from hmgr_jax.training import config as configs
from hmgr_jax.training import recipe_file
from hmgr_jax.training.check import check

MODEL = "clip"
RECIPE = "f8k_images"
"""The recipe of the data unless one is given: pictures with captions in COCO's format."""


def import_towers(
    folder: Path, workdir: Path, recipe: str, overrides: Mapping[str, str | None]
) -> None:
    """Make the run folder ``workdir`` from a folder as transformers saves it.

    Args:
        folder: of a CLIP or SigLIP; the run needs it no longer.
        workdir: a new folder.
        recipe: of the data, without the name of a system.
        overrides: values of the recipe that are set on the command line.

    Raises:
        UserError: ``workdir`` exists, or the folder cannot be read.
    """
    run_folder.check_new_folder(workdir)
    towers = clip.read_towers(folder)
    given = {**overrides, f"init.{clip.CLIP}": str(folder)}
    config = recipe_file.load(f"{recipe.partition(':')[0]}:{MODEL}", given)
    config = config.copy_and_resolve_references().unlock()
    config.init = {}
    check(config)
    side = towers.image.image
    meta: Meta = {
        "config": configs.plain(config),
        "vocabulary": clip.read_tokenizer(folder, towers).saved(),
        "features": {
            "image": {"pixels": (side, side, 3)},
            "text": {"tokens": (1,), "lengths": ()},
        },
        "steps_per_epoch": 1,
        "fingerprint": "imported weights",
    }
    state = state_shapes(saved_model(meta))
    params = clip.with_towers(state["params"], folder)
    run_folder.write(workdir, Saved({**state, "params": params}, meta, 0))
    print(f"imported:  {towers.kind} of {folder} into {workdir}")
    run_folder.print_next(workdir)
