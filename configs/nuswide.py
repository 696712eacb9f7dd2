"""NUS-WIDE (Chua et al., 2009): images with tags and several of 81 concepts each.

    python -m hmgr_jax.main --config configs/nuswide.py --config.data.root=DATA/nus_wide.h5

``data.root`` is a .h5 file as MRL's (``train_imgs_deep``, ``train_texts``, ``train_imgs_labels``
and the same of test), a .mat or .npz with the like, a folder of these, or a folder of the data's
own release: ``Low_Level_Features/{Train,Test}_*.dat``, ``NUS_WID_Tags/{Train,Test}_Tags1k.dat`` and
``Groundtruth/TrainTestLabels/Labels_CONCEPT_{Train,Test}.txt``. Right is what shares a concept.
Where there are no pairs for validation the first 5,000 of test are dev, as MRL has it, and test is
the rest; NUS-WIDE-10k, with 1,000 pairs of test, takes ``--config.data.features.valid=500``.

Time and numbers: unknown, never measured by us: the features are not ours to ship.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import labelled_features


def get_config(model: str = "gpldan") -> ConfigDict:
    """The recipe of one system on NUS-WIDE."""
    config = labelled_features("nuswide", model)
    config.data.features.valid = 5000
    config.train.steps = 20_000
    config.train.log_steps = 100
    config.train.eval_steps = 1000
    return config
