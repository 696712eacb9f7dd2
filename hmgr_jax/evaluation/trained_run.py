"""A trained run read from its folder: configuration, model, weights and vocabulary."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from hmgr_jax.data.text.pieces import vocabulary_from_json
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.models import without_removed
from hmgr_jax.models.base import Model, Plan
from hmgr_jax.shapes import Tree
from hmgr_jax.training import config as configs
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.experiment import make_model

OF_FOLDERS = ("pieces", "max_words", "buckets", "pixels")
"""Keys of data that a folder of weights has set, so that no recipe replaces them."""


class TrainedRun(NamedTuple):
    """The best step of a run."""

    config: ConfigDict
    model: Model
    state: Tree
    """``{"params", "stats", "memory"}``."""
    meta: Mapping[str, Any]
    """Saved beside the state: config, vocabulary, features, steps_per_epoch, fingerprint."""
    step: int

    @property
    def vocabulary(self) -> Vocabulary:
        """The words of the text side."""
        return vocabulary_from_json(self.meta["vocabulary"])


def read_run(
    workdir: Path, change: Callable[[ConfigDict], ConfigDict] = lambda saved: saved
) -> TrainedRun:
    """Read the dev-best step of a run, or its newest step if none was evaluated.

    ``change`` edits the saved configuration before the model is built.

    Raises:
        UserError: there is no complete checkpoint, or it does not fit the model.
    """
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} holds no checkpoints: give the --workdir of a trained run.")
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        newest = checkpoints.newest()
        if newest is None:
            raise UserError(f"{workdir} holds no complete checkpoint: train there first.")
        meta = checkpoints.meta(newest)
        config = change(saved_config(meta))
        model = saved_model(meta, config)
        state, meta, step = checkpoints.restore(state_shapes(model), best=True, partial=True)
    return TrainedRun(config, model, state, meta, step)


def replaced(saved: ConfigDict, config: ConfigDict, workdir: Path) -> ConfigDict:
    """``saved`` with data, scoring and evaluation of ``config``; warns of the changes."""
    if config.model.name != saved.model.name:
        raise UserError(
            f"{workdir} holds a {saved.model.name}, not a {config.model.name}: give its own "
            "recipe or another --workdir."
        )
    before = configs.plain(saved)
    data = ConfigDict(config.data.to_dict())
    if saved.data.get("pieces"):
        data.update({key: saved.data[key] for key in OF_FOLDERS})
    saved.data, saved.eval, saved.parallel = data, config.eval, config.parallel
    for key in (k.removeprefix("model.") for k in configs.SCORING):
        if key in config.model:
            saved.model[key] = config.model[key]
    kept = configs.differences(configs.plain(config), configs.plain(saved))
    if kept:
        warnings.warn(
            "the run keeps its trained options instead of the recipe's: "
            f"{configs.format_differences(kept)}",
            stacklevel=3,
        )
    changed = configs.differences(before, configs.plain(saved))
    if changed:
        warnings.warn(
            f"the recipe changes options of the trained run: {configs.format_differences(changed)}",
            stacklevel=3,
        )
    return saved


def saved_model(meta: Mapping[str, Any], config: ConfigDict | None = None) -> Model:
    """The model with the sizes of the saved data and weights, and other options of ``config``."""
    config = saved_config(meta) if config is None else config
    features = {
        m: {name: tuple(shape) for name, shape in inputs.items()}
        for m, inputs in meta["features"].items()
    }
    steps, classes = config.train.steps, meta.get("classes", 0)  # older runs have none
    words = len(vocabulary_from_json(meta["vocabulary"]))
    rows = meta.get("rows", config.train.batch_size * meta["steps_per_epoch"])
    plan = Plan(steps, meta["steps_per_epoch"], words, features, classes, rows)
    return make_model(config, plan)


def state_shapes(model: Model) -> Tree:
    """Shapes and types of the state of a model."""
    found = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    return {"params": found.params, "stats": found.stats, "memory": found.memory}


def saved_config(meta: Mapping[str, Any]) -> ConfigDict:
    """The configuration of a run; keys that are newer than the run have their defaults."""
    saved = with_tuples(meta["config"])
    name = saved["model"]["name"]
    saved = {**saved, "model": without_removed(name, saved["model"])}
    config = configs.recipe(saved["name"], name).unlock()
    with config.ignore_type():
        config.update(saved)
    return config


def with_tuples(tree: Any) -> Any:
    """JSON's lists converted back to the tuples of configurations."""
    if isinstance(tree, Mapping):
        return {k: with_tuples(v) for k, v in tree.items()}
    return tuple(with_tuples(v) for v in tree) if isinstance(tree, list) else tree
