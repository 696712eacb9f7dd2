"""Pascal Sentence (Rashtchian et al., 2010): 1,000 images of twenty classes with a text each.

    python -m hmgr_jax.main --config configs/pascal.py --config.data.root=DATA/pascal

``data.root`` is a folder of .mat files as DSCMR's is passed on (``train_img.mat``,
``train_txt.mat``, ``train_img_lab.mat`` and the same of test: 800 and 100 pairs, 4096 features of
VGG and 300 of the text), or one .mat, .npz or .h5 file. Where there are no pairs for validation the
first 50 of test are dev, and test is the rest.

Time and numbers: unknown, never measured by us: the features are not ours to ship.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import labelled_features

EPOCH = 12  # steps: 800 pairs in batches of 64


def get_config(model: str = "gpldan") -> ConfigDict:
    """The recipe of one system on Pascal Sentence."""
    config = labelled_features("pascal", model)
    config.data.features.valid = 50
    config.train.steps = 100 * EPOCH
    config.train.log_steps = EPOCH
    config.train.eval_steps = 5 * EPOCH
    return config
