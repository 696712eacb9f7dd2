"""Generated worlds as rendered pictures, made on the spot, no files needed.

    hmgr-jax train --config worlds_images          or worlds_images:clip

The scenes and captions of the recipe ``worlds``, as pictures of 64 by 64 pixels instead of region
features. Nothing is flipped or cropped: captions say which object stands left of which. A random
rectangle is erased with probability 0.2. ``:clip`` has small Transformers without weights.
Hardware: a laptop, 17 minutes of a core.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe
from hmgr_jax.training.recipe_parts import SMALL_PCME, use_adamp, use_adamw

STEPS = 800
PCME = {
    "dim": 128,
    "word_dim": 64,
    "cnn": "resnet10",
    "cnn_width": 16,
    "cnn_small_stem": True,
    **SMALL_PCME,
}
CLIP = {
    "dim": 128,
    "picture_patch": 8,
    "picture_width": 128,
    "picture_layers": 4,
    "picture_heads": 4,
    "picture_intermediate": 256,
    "clip_width": 128,
    "clip_layers": 3,
    "clip_heads": 4,
    "clip_intermediate": 256,
    "clip_positions": 24,
}


def get_config(model: str = "pcme") -> ConfigDict:
    """The recipe of one system on rendered worlds."""
    config = recipe("worlds_images", model, **{"pcme": PCME, "clip": CLIP}.get(model, {}))
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
        use_adamp(config)
    if model == "clip":
        use_adamw(config)
        config.train.lr = 1e-3
    return config
