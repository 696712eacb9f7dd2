"""MS-COCO, bottom-up attention features in SCAN's layout, at the paper's sizes.

    python -m hmgr_jax.main --config configs/coco.py --config.data.root=DATA/coco_precomp
    python -m hmgr_jax.main --config configs/coco.py:vse --config.data.root=DATA/coco_precomp
    python -m hmgr_jax.main --config configs/coco.py:imram --config.data.root=DATA/coco_precomp
    python -m hmgr_jax.main --config configs/coco.py:racg --config.data.root=DATA/coco_precomp
    python -m hmgr_jax.main --config configs/coco.py:resg --config.data.root=DATA/coco_precomp
    python -m hmgr_jax.main --config configs/coco.py:pcme --config.data.root=DATA/coco_precomp
    python -m hmgr_jax.main --config configs/coco.py:dxr --config.data.root=DATA/coco_precomp \
        --config.init.bert=DATA/bert-base-uncased

Files expected in ``data.root``: ``{train,dev,testall}_ims.npy`` [rows, 36, 2048] (float32 or
float16, 33.4 GB for train), ``_caps.txt``, and ``_ids.txt`` where images are repeated, once a
caption. Features are read as they are needed, never all at once (BUILD_NOTES.md,
"Speed and memory").

Results are reported by two protocols, named with every number: COCO 5K (all 5,000 test images) and
COCO 1K (the mean of five consecutive folds of 1,000).

Hardware: one accelerator with 16 GB, or several (the batch of 128 is split over them). Time and
numbers: unknown, never measured by us: the features are not ours to ship and no run was made.

Schedule: 30 epochs of 4,425 steps, the rate a tenth after half of them (BUILD_NOTES.md, "HMGR").
``:imram`` and ``:scan`` have the released IMRAM's setting: sharpness 11, a rate of 5e-4, 20 epochs;
``:racg``, ``:racg_strict`` and ``:resg`` the same. These use boxes, labels and attributes (Visual
Genome's 1,600 and 400 classes), ``:resg`` word graphs too, where the folder has them.
``:pcme`` has the released PCME's setting on regions: AdamP, 30 epochs with frozen words at 2e-4 and
30 of everything at 2e-5, a cosine each; scale and shift are not clipped. Its words come from
GloVe: ``--config.data.vectors=glove.840B.300d.txt``. ``:dxr`` reads captions with BERT-base, whose
sizes, WordPieces and weights come from the folder ``init.bert``: AdamW, 25 epochs, a tenth of the
rate for BERT and a tenth of all after 15; from pictures it is in ``configs/coco_images.py``.
"""

from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

# Captions of the same picture count as negatives in the released IMRAM and SCAN.
RELEASED = {"sharpness": 11.0, "mask_same_image": False}
OF_MODEL = {
    "imram": RELEASED,
    "scan": RELEASED,
    "racg": {},
    "racg_strict": {},
    "resg": {"sharpness": 11.0},
    "pcme": {"word_dropout": 0.1, "word_removal": 0.1},
}
EPOCH = 4425
STAGE: dict[str, Any] = {"steps": 30 * EPOCH, "own_schedule": True}


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on MS-COCO."""
    matching = model in OF_MODEL and model != "pcme"
    config = recipe("coco", model, dim=1024, **OF_MODEL.get(model, {}))
    config.data.splits.test = "testall"
    config.train.steps = (20 if matching else 30) * EPOCH
    config.train.lr = 5e-4 if matching else 2e-4
    config.train.decay = "step"
    config.train.decay_at = 0.5
    config.train.log_steps = 100
    config.eval.protocols = ("coco5k", "coco1k")
    if model == "pcme":
        config.train.steps = 2 * STAGE["steps"]
        config.train.decay = "cosine"
        config.train.optimizer = "adamp"
        config.train.unclipped = ("match",)
        second = {**STAGE, "fresh_optimizer": True, "lr_factor": 0.1}
        config.train.stages = ({**STAGE, "frozen": ("words",)}, second)
    if model == "dxr":
        config.train.steps = 25 * EPOCH
        config.train.lr = 5e-4
        config.train.decay_at = 0.6
        config.train.optimizer = "adamw"
        config.train.weight_decay = 1e-4
        config.train.lr_factors.bert = 0.1
    return config
