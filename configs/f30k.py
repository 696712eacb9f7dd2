r"""Flickr30K, bottom-up attention features in SCAN's layout, at the paper's sizes.

    hmgr-jax train --config f30k --config.data.root=DATA/f30k_precomp          or f30k:SYSTEM
    hmgr-jax train --config f30k:dxr --config.data.root=DATA/f30k_precomp \
        --config.init.bert=DATA/bert-base-uncased

Systems: hmgr, vse, imram, scan, racg, racg_strict, resg, pcme, dxr. Hardware: one accelerator with
16 GB, or several. Never measured: the features are not ours to ship.

Files in ``data.root``: ``{train,dev,test}_ims.npy`` [rows, 36, 2048] (float32 or float16, 8.6 GB
for train), ``_caps.txt``, and ``_ids.txt`` if images are repeated, once per caption.

Schedule: 30 epochs of 1,132 steps, a tenth of the rate after half of them; sum-loss warm-up of one
epoch. ``:imram`` is the released setting (3 steps, sharpness 9, one model of both directions;
``--config.model.variant=text`` or ``image`` for one). ``:racg``, ``:racg_strict`` (CGAM's
equations) and ``:resg`` use boxes, labels and attributes (Visual Genome's 1,600 and 400 classes),
``:resg`` word graphs too, if the folder has them.

``:dxr`` reads captions with BERT-base, whose sizes, WordPieces and weights come from the folder
``init.bert``. ``:hmgr`` and ``:imram`` do too with that folder, which sets ``model.text=bert``;
give BERT a tenth of the rate there, as ``--config.train.lr_factors.bert=0.1``.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import known_fields, recipe
from hmgr_jax.training.recipe_parts import dxr_with_bert

EPOCH = 1132
# Captions of the same picture count as negatives in the released IMRAM and SCAN.
OF_MODEL = {"imram": {"mask_same_image": False}, "scan": {"mask_same_image": False}}


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on Flickr30K."""
    config = recipe("f30k", model, **known_fields(model, dim=1024), **OF_MODEL.get(model, {}))
    config.train.steps = 30 * EPOCH
    config.train.lr = 2e-4
    config.train.decay = "step"
    config.train.decay_at = 0.5
    config.train.log_steps = 50
    config.eval.protocols = ("f30k",)
    if model == "hmgr":
        config.eval.calibration = "bank"
    if model == "dxr":
        dxr_with_bert(config, EPOCH)
    return config
