r"""Feature sets: a vector per image and a vector per text, in pairs.

    hmgr-jax train --config features --config.data.root=DATA/mine.npz \
        --config.data.features.image={}_pictures --config.data.features.text={}_articles
    hmgr-jax train --config features:pascal --config.data.root=DATA/pascal
    hmgr-jax train --config features:gin-nuswide --config.data.root=DATA/nus_wide.h5

``SYSTEM``, ``SET`` or ``SYSTEM-SET``. Systems: gpldan (default), gin, sckr. Without a set, arrays
of your own; the published sets are selected by mAP@50 and were never measured: the features are not
ours to ship.

``data.root`` is a .mat, .npz or .h5 file, or a folder of such files and of .npy. Row i of
``train_pictures`` and of ``train_articles`` is a pair, and the same of dev and test; the names that
releases use (``I_tr``, ``train_img``, ``train_imgs_deep``, ...) need not be given. Or all pairs
stand in ``img`` and ``txt``, and ``split`` gives train, dev or test of each. Without dev, the first
``data.features.valid`` pairs of test are dev, and test is the rest. ``labels`` ([n] or, of several
classes, 0 and 1 [n, K]) are used by evaluation alone, as ``--config.eval.protocols="('map',)"
--config.eval.dev_protocols="('map',)" --config.eval.select=mAP``; without them the own pair is
relevant. ``:gin`` and ``:sckr`` learn from labels with ``--config.model.match=label``, and from
pairs without.

``pascal``: Pascal Sentence (Rashtchian et al., 2010), 1,000 images of twenty classes with a text
each, as DSCMR's ``train_img.mat``, ``train_txt.mat``, ``train_img_lab.mat`` and the same of test.

``nuswide``: NUS-WIDE (Chua et al., 2009), images with tags and several of 81 concepts each, as
MRL's .h5 or the release (``Low_Level_Features``, ``NUS_WID_Tags``, ``Groundtruth``). An item that
shares a concept is relevant. NUS-WIDE-10k takes ``--config.data.features.valid=500``.

``xmedia``: XMedia and XMediaNet (Peng et al., 2018), images and texts of 20 (200) classes, as MRL's
.h5. Row i of images and of texts must be a pair: XMedia's release lists its media by themselves.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from hmgr_jax.errors import UserError
from hmgr_jax.training.config import BY_LABEL, labelled_features, recipe


class Published(NamedTuple):
    """A published set: pairs for dev, and the schedule in steps."""

    valid: int
    steps: int
    log_steps: int
    eval_steps: int


SETS = {
    "pascal": Published(50, 100 * 12, 12, 5 * 12),  # 800 pairs in batches of 64
    "nuswide": Published(5000, 20_000, 100, 1000),
    "xmedia": Published(250, 60 * 62, 62, 5 * 62),  # 4,000 pairs in batches of 64
}


def get_config(model: str = "gpldan") -> ConfigDict:
    """The recipe of one system on arrays of your own, or on a published set."""
    system, _, name = ("gpldan", "", model) if model in SETS else model.partition("-")
    if not name:
        return _own_arrays(system)
    if name not in SETS:
        raise UserError(f"There is no feature set {name!r}: choose from {', '.join(SETS)}.")
    config = labelled_features(name, system)
    published = SETS[name]
    config.data.features.valid = published.valid
    config.train.steps = published.steps
    config.train.log_steps = published.log_steps
    config.train.eval_steps = published.eval_steps
    return config


def _own_arrays(system: str) -> ConfigDict:
    fields = {k: v for k, v in BY_LABEL.get(system, {}).items() if k != "match"}
    config = recipe("features", system, **fields)
    config.data.source = "features"
    config.train.steps = 2000
    config.train.batch_size = 64
    config.train.lr = 1e-4
    config.train.decay = "none"
    config.train.log_steps = 50
    return config
