"""Flickr30K, bottom-up attention features in SCAN's layout, at the paper's sizes.

    python -m hmgr_jax.main --config configs/f30k.py --config.data.root=DATA/f30k_precomp
    python -m hmgr_jax.main --config configs/f30k.py:vse --config.data.root=DATA/f30k_precomp
    python -m hmgr_jax.main --config configs/f30k.py:imram --config.data.root=DATA/f30k_precomp
    python -m hmgr_jax.main --config configs/f30k.py:racg --config.data.root=DATA/f30k_precomp
    python -m hmgr_jax.main --config configs/f30k.py:resg --config.data.root=DATA/f30k_precomp
    python -m hmgr_jax.main --config configs/f30k.py:dxr --config.data.root=DATA/f30k_precomp \
        --config.init.bert=DATA/bert-base-uncased

``:imram`` is IMRAM's released setting (3 steps, sharpness 9, one model of both directions;
``--config.model.variant=text`` or ``image`` for one), ``:scan`` the same with one step and words
attending to regions. ``:racg``, ``:racg_strict`` (CGAM's equations) and ``:resg`` use boxes, labels
and attributes (Visual Genome's 1,600 and 400 classes), ``:resg`` word graphs too, where the folder
has them.

Files expected in ``data.root``: ``{train,dev,test}_ims.npy`` [rows, 36, 2048] (float32 or float16,
8.6 GB for train), ``_caps.txt``, and ``_ids.txt`` where images are repeated, once a caption.

Hardware: one accelerator with 16 GB, or several (the batch of 128 is split over them). Time and
numbers: unknown, never measured by us: the features are not ours to ship and no run was made.
HMGR's paper gives no numbers that we could read.

``:dxr`` reads captions with BERT-base, whose sizes, WordPieces and weights come from the folder
``init.bert``; AdamW, 25 epochs, a tenth of the rate for BERT and a tenth of all after 15. So do
``:hmgr`` and ``:imram`` with that folder, which sets ``model.text=bert``; give BERT a tenth of the
rate there, as ``--config.train.lr_factors.bert=0.1``.

Schedule: 30 epochs of 1,132 steps, the rate a tenth after half of them; sum-loss warm-up of one
epoch; memory read after 10% of the steps (BUILD_NOTES.md, "HMGR").
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

EPOCH = 1132


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on Flickr30K."""
    # Captions of the same picture count as negatives in the released IMRAM and SCAN.
    fields = {"mask_same_image": False} if model in ("imram", "scan") else {}
    config = recipe("f30k", model, dim=1024, **fields)
    config.train.steps = 30 * EPOCH
    config.train.lr = 2e-4
    config.train.decay = "step"
    config.train.decay_at = 0.5
    config.train.log_steps = 50
    config.eval.protocols = ("f30k",)
    if model == "dxr":
        config.train.steps = 25 * EPOCH
        config.train.lr = 5e-4
        config.train.decay_at = 0.6
        config.train.optimizer = "adamw"
        config.train.weight_decay = 1e-4
        config.train.lr_factors.bert = 0.1
    return config
