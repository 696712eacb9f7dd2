"""Wikipedia (Rasiwasia et al., 2010): 2,866 pairs of an image and an article of ten classes.

    hmgr-jax train --config wikipedia --config.data.root=DATA/wikipedia.npz

``data.root`` is ``raw_features.mat`` in a folder with ``trainset_txt_img_cat.list`` and
``testset_txt_img_cat.list``, or one file (.mat, .npz, .h5) with images, texts and labels, whatever
their features: 128 visual words and 10 topics of the release, VGG's 4096 and bags of words.

Training sees no labels. The step is selected by the first 231 of the 693 test pairs (mAP@50, as
CDPAE, DGCPN and MRL have it), and the other 462 are test; with ``--config.data.features.test=all``
test is all 693.

Hardware: any, 20 seconds of a core.
"""

from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.training.config import labelled_features

EPOCH = 33  # steps: 2,173 pairs in batches of 64
GPLDAN: dict[str, Any] = {"dim": 256, "gate_dim": 64, "lambda_1": 1.0}


def get_config(model: str = "gpldan") -> ConfigDict:
    """The recipe of one system on Wikipedia."""
    config = labelled_features("wikipedia", model, **(GPLDAN if model == "gpldan" else {}))
    config.data.features.valid = 231
    config.train.steps = 30 * EPOCH
    config.train.lr = 3e-4
    config.train.decay = "cosine"
    config.train.log_steps = EPOCH
    config.train.eval_steps = EPOCH
    return config
