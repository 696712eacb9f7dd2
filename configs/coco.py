r"""MS-COCO, bottom-up attention features in SCAN's layout, at the paper's sizes.

    hmgr-jax train --config coco --config.data.root=DATA/coco_precomp          or coco:SYSTEM
    hmgr-jax train --config coco:dxr --config.data.root=DATA/coco_precomp \
        --config.init.bert=DATA/bert-base-uncased

Systems: hmgr, vse, imram, scan, racg, racg_strict, resg, pcme, dxr. Hardware: one accelerator with
16 GB, or several. Never measured: the features are not ours to ship.

Files in ``data.root``: ``{train,dev,testall}_ims.npy`` [rows, 36, 2048] (float32 or float16,
33.4 GB for train), ``_caps.txt``, and ``_ids.txt`` if images are repeated, once per caption.

Reported by two protocols: COCO 5K (all 5,000 test images) and COCO 1K (the mean of five folds).

Schedule: 30 epochs of 4,425 steps, a tenth of the rate after half of them. Systems that score pairs
have the released IMRAM's: a rate of 5e-4, 20 epochs. ``:pcme`` has the released PCME's, on regions;
its words come from GloVe with ``--config.data.vectors=glove.840B.300d.txt``. ``:dxr`` reads
captions with BERT-base, whose sizes, WordPieces and weights come from the folder ``init.bert``.
"""

from ml_collections import ConfigDict

from hmgr_jax.models import properties
from hmgr_jax.training.config import known_fields, recipe
from hmgr_jax.training.recipe_parts import WORD_NOISE, dxr_with_bert, released_pcme

# Captions of the same picture count as negatives in the released IMRAM and SCAN.
RELEASED = {"sharpness": 11.0, "mask_same_image": False}
OF_MODEL = {
    "imram": RELEASED,
    "scan": RELEASED,
    "resg": {"sharpness": 11.0},
    "pcme": WORD_NOISE,
}
EPOCH = 4425


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on MS-COCO."""
    in_pairs = properties(model).score == "pairs"
    config = recipe("coco", model, **known_fields(model, dim=1024), **OF_MODEL.get(model, {}))
    config.data.splits.test = "testall"
    config.train.steps = (20 if in_pairs else 30) * EPOCH
    config.train.lr = 5e-4 if in_pairs else 2e-4
    config.train.decay = "step"
    config.train.decay_at = 0.5
    config.train.log_steps = 100
    config.eval.protocols = ("coco5k", "coco1k")
    if model == "hmgr":
        config.eval.calibration = "bank"
    if model == "pcme":
        released_pcme(config, EPOCH, ["words"])
    if model == "dxr":
        dxr_with_bert(config, EPOCH)
    return config
