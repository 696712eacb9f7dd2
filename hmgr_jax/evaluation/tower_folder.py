"""A CLIP or SigLIP as transformers saves it, as a run that was never trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.evaluation.trained_run import TrainedRun, saved_config, saved_model, state_shapes
from hmgr_jax.interop import clip, clip_inputs, clip_weights
from hmgr_jax.training import config as configs
from hmgr_jax.training import recipe_file
from hmgr_jax.training.check import check

MODEL = "clip"
RECIPE = "f8k_images"
"""The recipe of the data unless one is given: pictures with captions in COCO's format."""


def read_folder(
    folder: Path,
    change: Callable[[ConfigDict], ConfigDict] = lambda saved: saved,
    *,
    recipe: str = RECIPE,
    overrides: Mapping[str, str | None] | None = None,
) -> TrainedRun:
    """The system ``clip`` with the weights, tokens and preprocessing of a folder.

    Args:
        folder: of a CLIP or SigLIP.
        change: edits the configuration.
        recipe: of the data, without the name of a system.
        overrides: values of the recipe that are set on the command line.

    Raises:
        UserError: the folder cannot be read.
    """
    towers = clip.read_towers(folder)
    given = {**(overrides or {}), f"init.{clip.CLIP}": str(folder)}
    config = recipe_file.load(f"{recipe.partition(':')[0]}:{MODEL}", given)
    config = config.copy_and_resolve_references().unlock()
    config.init = {}
    check(config)
    side = towers.image.image
    meta: dict[str, Any] = {
        "config": configs.plain(config),
        "vocabulary": clip_inputs.read_tokenizer(folder, towers).saved(),
        "features": {
            "image": {"pixels": (side, side, 3)},
            "text": {"tokens": (1,), "lengths": ()},
        },
        "steps_per_epoch": 1,
        "fingerprint": "imported weights",
    }
    changed = change(saved_config(meta))
    model = saved_model(meta, changed)
    state = state_shapes(model)
    params = clip_weights.with_towers(state["params"], folder)
    return TrainedRun(changed, model, {**state, "params": params}, meta, 0)
