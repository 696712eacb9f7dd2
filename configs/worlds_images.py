"""Generated worlds as rendered pictures, made on the spot, no files needed.

    python -m hmgr_jax.main --config configs/worlds_images.py

The scenes and captions of ``configs/worlds.py``, seen as pictures of 64 by 64 pixels instead of
region features. Nothing is flipped or cropped: captions say who stands left of whom. A random
rectangle is erased with probability 0.2.

Hardware: a laptop; drawing a picture takes 3 ms of a core, once a run, and a step 1.0 to 1.5 s of
one: a run took 17 minutes of a busy core. Measured, one seed: sum of recalls 108.8 (dev 162.2,
still rising) and family accuracy 26.1% (chance 25%).
"""

from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

STEPS = 800
PCME: dict[str, Any] = {
    "dim": 128,
    "word_dim": 64,
    "cnn": "resnet10",
    "cnn_width": 16,
    "cnn_small_stem": True,
    "init_scale": 5.0,
    "init_shift": 5.0,
    "log_sigma_start": -4.0,
    "match": "group",
    "vib_beta": 1e-4,
}


def get_config(model: str = "pcme") -> ConfigDict:
    """The recipe of one system on rendered worlds."""
    config = recipe("worlds_images", model, **(PCME if model == "pcme" else {}))
    config.data.source = "worlds"
    config.data.worlds.pictures = True
    config.data.worlds.train = 8000
    config.data.pixels.size = 64
    config.data.pixels.resize = 64
    config.data.pixels.train = "centre"
    config.data.pixels.flip = 0.0
    config.data.batching = "groups"
    config.data.buckets = (24,)
    config.train.steps = STEPS
    config.train.batch_size = 128
    config.train.lr = 2e-3
    config.train.warmup_steps = 60
    config.train.decay = "cosine"
    config.train.log_steps = 20
    config.train.eval_steps = 200
    config.eval.protocols = ("worlds", "family")
    config.eval.dev_protocols = ("worlds", "family")
    if model == "pcme":
        config.train.optimizer = "adamp"
        config.train.unclipped = ("match",)
    return config
