"""Pictures with one caption each and 64 grid vectors instead of regions, the shape of KWAI-AD.

    hmgr-jax train --config kwai_ad --config.data.root=DATA/my_ads

IMRAM's third data set is not public; this is its shape for a folder of your own. Files expected in
``data.root``: ``{train,dev,test}_ims.npy`` [pictures, 64, features] (float16 or float32) and
``_caps.txt`` with a caption a line; ``_ids.txt`` may name the rows.

Never measured: the data is not public.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe


def get_config(model: str = "imram") -> ConfigDict:
    """The recipe of one system on one caption a picture."""
    config = recipe("kwai_ad", model, dim=1024)
    config.data.captions_per_image = 1
    config.train.steps = 20000
    config.train.lr = 2e-4
    config.train.decay = "step"
    config.train.decay_at = 0.5
    config.train.log_steps = 50
    config.eval.protocols = ("plain",)
    return config
