"""Generated worlds: scenes of coloured shapes with captions, made on the spot, no files needed.

    python -m hmgr_jax.main --config configs/worlds.py
    python -m hmgr_jax.main --config configs/worlds.py:vse
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on generated worlds."""
    config = recipe("worlds", model, dim=128, word_dim=64, slots=64, key_dim=64)
    config.data.source = "worlds"
    config.data.batching = "groups"
    config.data.buckets = (16, 24, 32)
    config.train.steps = 600
    config.train.batch_size = 64
    config.train.lr = 1e-3
    config.train.warmup_steps = 30
    config.train.decay = "cosine"
    config.train.eval_steps = 100
    config.train.log_steps = 20
    config.eval.protocols = ("worlds", "family")
    config.eval.dev_protocols = ("worlds", "family")
    return config
