"""XMedia and XMediaNet (Peng et al., 2018): images and texts of 20 (200) classes.

    python -m hmgr_jax.main --config configs/xmedia.py --config.data.root=DATA/xmedianet.h5

``data.root`` is a .h5 file as MRL's (``train_imgs_deep``, ``train_text``, ``train_imgs_labels``,
and the same of valid and test), or a .mat or .npz with the like. Where there are no pairs for
validation the first 250 of test are dev, and test is the rest. Row i of images and of texts must be
a pair: XMedia's release lists its media by themselves.

Time and numbers: unknown, never measured by us: the features are not ours to ship.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import labelled_features

EPOCH = 62  # steps: XMedia's 4,000 pairs in batches of 64


def get_config(model: str = "gpldan") -> ConfigDict:
    """The recipe of one system on XMedia or XMediaNet."""
    config = labelled_features("xmedia", model)
    config.data.features.valid = 250
    config.train.steps = 60 * EPOCH
    config.train.log_steps = EPOCH
    config.train.eval_steps = 5 * EPOCH
    return config
