"""CUB-200-2011 with ten captions a picture (Reed et al., CVPR 2016), read from pictures.

    hmgr-jax train --config cub --config.data.root=DATA/cub

Files in ``data.root``: ``CUB_200_2011/images/NNN.Species/*.jpg``, and ``cvpr2016_cub`` with
``text_c10/NNN.Species/*.txt`` and the lists ``trainvalclasses.txt``, ``testclasses.txt`` and, of
PCME's release, ``seen_test_images.txt`` (pictures of seen species that are held out).

Trained on the 150 seen species without the held-out pictures; dev is these (seen species), by which
the step is selected, test is the 50 unseen species. Items of a query's species are relevant: the
protocol ``cub`` reports R-Precision, R@1, P@5 to P@100 and mAP@R of both directions. For the
hyper-parameters the release has three splits of the 150 into 100 and 50, as
``--config.data.splits.train=trainclasses1 --config.data.splits.dev=valclasses1
--config.train.batch_size=100``.

A batch holds one picture of every species (``data.batching=classes``). Pictures are scaled to 256
and cut to 224, with random erasing and without crops or flips, as PCME's. ResNet-50 begins at
random unless ``--config.init.cnn=resnet50.pth`` names weights; words come from GloVe with
``--config.data.vectors=glove.840B.300d.txt``.

Hardware: one accelerator with 16 GB. Never measured: the pictures are not ours to ship.
"""

from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe
from hmgr_jax.training.recipe_parts import WORD_NOISE, use_adamp

SPECIES = 150
EPOCH = 470  # steps: 70,570 captions in batches of 150
FIRST, SECOND = 10 * EPOCH, 50 * EPOCH
PCME: dict[str, Any] = {
    "dim": 512,
    "cnn": "resnet50",
    "init_scale": 5.0,
    "init_shift": 5.0,
    "vib_beta": 1e-3,
    "uniform_lambda": 10.0,
    **WORD_NOISE,
}


def get_config(model: str = "pcme") -> ConfigDict:
    """The recipe of one system on CUB-200-2011."""
    config = recipe("cub", model, **(PCME if model == "pcme" else {}))
    config.data.source = "cub"
    config.data.splits.train = "trainvalclasses"
    config.data.splits.dev = "seen_test_images"
    config.data.splits.test = "testclasses"
    config.data.batching = "classes"
    config.data.pixels.train = "centre"
    config.data.pixels.flip = 0.0
    config.data.buckets = (24, 32, 48, 96)
    config.train.steps = FIRST + SECOND
    config.train.batch_size = SPECIES
    config.train.lr = 1e-4
    config.train.decay = "cosine"
    config.train.log_steps = 50
    config.eval.protocols = ("cub",)
    config.eval.dev_protocols = ("cub",)
    config.eval.select = "R-P"
    if model == "pcme":
        use_adamp(config)
        # The first stage makes the first 10 epochs of the whole run's cosine (of 60; released: 50).
        first = {"steps": FIRST, "frozen": ("cnn", "words"), "own_schedule": False}
        second = {"steps": SECOND, "own_schedule": True, "fresh_optimizer": True}
        config.train.stages = (first, second)
    return config
