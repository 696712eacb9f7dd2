r"""One's own arrays: a vector an image and a vector a text, in pairs.

    python -m hmgr_jax.main --config configs/features.py --config.data.root=DATA/mine.npz \
        --config.data.features.image={}_pictures --config.data.features.text={}_articles

``data.root`` is a .mat, .npz or .h5 file, or a folder of such files and of .npy. Row i of
``train_pictures`` and of ``train_articles`` is a pair, and the same of dev and test; the names
that releases use (``I_tr``, ``train_img``, ``train_imgs_deep``, ...) need not be given. Or all
pairs stand in ``img`` and ``txt`` (or in arrays whose names are given without ``{}``), and
``split`` says of each whether it is train, dev or test. Without dev,
``--config.data.features.valid=500`` takes the first 500 pairs of test. ``labels`` ([n] or, of
several classes, 0 and 1 [n, K]) are used by evaluation alone, as
``--config.eval.protocols="('map',)" --config.eval.dev_protocols="('map',)"
--config.eval.select=mAP``; without them the pairs themselves are what is to be found. ``:gin`` and
``:sckr`` learn from labels with ``--config.model.match=label``, and from pairs without.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import BY_LABEL, recipe


def get_config(model: str = "gpldan") -> ConfigDict:
    """The recipe of one system on arrays of one's own."""
    own = {k: v for k, v in BY_LABEL.get(model, {}).items() if k != "match"}
    config = recipe("features", model, **own)
    config.data.source = "features"
    config.train.steps = 2000
    config.train.batch_size = 64
    config.train.lr = 1e-4
    config.train.decay = "none"
    config.train.log_steps = 50
    return config
