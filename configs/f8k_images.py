r"""Flickr8k pictures with COCO-format captions, trained from pixels.

    hmgr-jax train --config f8k_images --config.data.root=DATA/f8k_images
    hmgr-jax train --config f8k_images:clip --config.data.root=DATA/f8k_images \
        --config.init.clip=FOLDER

Files in ``data.root``: a folder ``images`` and ``captions_{train,dev,test}.json`` in COCO's
format. If a folder ``f8k_text`` with ``Flickr8k.token.txt`` and ``Flickr_8k.trainImages.txt``
lies beside it, words are learnt from the captions of that whole train list. Pictures are scaled to
128 on the shorter side and cut to 112; other sizes with ``--config.data.pixels.resize`` and
``size``. The CNN has random weights without ``--config.init.cnn=resnet18.pth``. ``:clip`` trains a
CLIP or SigLIP on: ``FOLDER`` is saved by transformers, and its pixels and tokens are used.

Hardware: one accelerator, or a patient CPU. Never measured.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe
from hmgr_jax.training.recipe_parts import SMALL_PCME, WORD_NOISE, use_adamp, use_adamw

PCME = {"dim": 256, "cnn": "resnet18", **SMALL_PCME, **WORD_NOISE}


def get_config(model: str = "pcme") -> ConfigDict:
    """The recipe of one system on Flickr8k pictures."""
    config = recipe("f8k_images", model, **(PCME if model == "pcme" else {}))
    config.data.source = "pictures"
    config.data.captions = "captions_{split}.json"
    config.data.pictures = "images"
    config.data.pixels.size = 112
    config.data.pixels.resize = 128
    config.data.vectors = "captions"
    config.data.captions_from = "../f8k_text"
    config.data.buckets = (24, 40, 96)
    config.train.steps = 464
    config.train.batch_size = 64
    config.train.lr = 5e-4
    config.train.warmup_steps = 60
    config.train.decay = "cosine"
    config.eval.protocols = ("f8k",)
    if model == "pcme":
        use_adamp(config)
    if model == "clip":
        use_adamw(config)
        config.train.lr = 1e-5
        config.train.lr_factors.projections = 10.0
        config.data.pixels.train = "centre"
        config.data.pixels.erase = 0.0
        config.data.vectors = "none"
        config.data.buckets = (24, 40, 77)
        config.data.max_words = 75
    return config
