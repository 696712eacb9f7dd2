"""The recipe of the soak: a run of seconds that evaluates and saves often."""

from __future__ import annotations

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

STEPS, EVALUATED, SAVED, LOGGED = 120, 10, 4, 2


def get_config(model: str = "vse") -> ConfigDict:
    """A small system on a few generated scenes, with dropout if the system has it."""
    config = recipe("soak", model, dim=16, word_dim=8)
    for name in ("region_dropout", "word_dropout"):
        if name in config.model:
            config.model[name] = 0.2
    config.data.source = "worlds"
    config.data.batching = "groups"
    config.data.buckets = (32,)
    config.data.worlds.train, config.data.worlds.dev, config.data.worlds.test = 400, 100, 100
    config.train.steps = STEPS
    config.train.batch_size = 16
    config.train.lr = 1e-3
    config.train.decay = "cosine"
    config.train.eval_steps = EVALUATED
    config.train.save_steps = SAVED
    config.train.log_steps = LOGGED
    config.eval.protocols = config.eval.dev_protocols = ("worlds", "family")
    config.eval.batch_size = 32
    config.eval.tile = 50
    config.parallel.devices = 1
    return config
