"""MS-COCO from pictures: Karpathy's splits, and every protocol of its test images.

    python -m hmgr_jax.main --config configs/coco_images.py --config.data.root=DATA/coco
    python -m hmgr_jax.main --config configs/coco_images.py:dxr --config.data.root=DATA/coco \
        --config.init.cnn=resnet152.pth --config.init.bert=DATA/bert-base-uncased

Expected in ``data.root``: ``dataset_coco.json`` (Karpathy), ``train2014`` and ``val2014`` with the
pictures, and ``annotations/captions_val2014.json`` and ``instances_val2014.json`` of COCO. Trained
on train and restval, 113,287 pictures.

COCO 5K and 1K, PMRP (5K and 1K), ECCV Caption and CxC are reported; the last two need the package
``eccv_caption`` (``pip install 'hmgr-jax[eccv]'``). ``:pcme`` has the released setting: ResNet-152
(``--config.init.cnn=resnet152.pth`` for its weights, else it begins at random), AdamP, 30 epochs
with a frozen CNN and words at 2e-4 and 30 of everything at 2e-5, a cosine each. ``:dxr`` has
ResNet-152 and BERT-base: AdamW, 25 epochs, a tenth of the rate for BERT and a hundredth for the
CNN, which rests in the first epoch; a tenth of all after 15.

Hardware: an accelerator with 32 GB, or several; ``--config.data.workers=8`` decodes in as many
processes. Time and numbers: unknown, never measured by us: the pictures are not ours to ship and no
run was made.
"""

from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

EPOCH = 4425
STAGE: dict[str, Any] = {"steps": 30 * EPOCH, "own_schedule": True}
PCME: dict[str, Any] = {"word_dropout": 0.1, "word_removal": 0.1}


def get_config(model: str = "pcme") -> ConfigDict:
    """The recipe of one system on COCO's pictures."""
    config = recipe("coco_images", model, **(PCME if model == "pcme" else {}))
    config.data.source = "pictures"
    config.data.captions = "dataset_coco.json"
    config.data.numbered = "annotations/captions_val2014.json"
    config.data.instances = "annotations/instances_val2014.json"
    config.data.splits.test = "testall"
    config.train.steps = 2 * STAGE["steps"]
    config.train.lr = 2e-4
    config.train.decay = "cosine"
    config.train.log_steps = 100
    config.eval.protocols = ("coco5k", "coco1k", "pmrp", "pmrp1k", "eccv", "cxc")
    if model == "pcme":
        config.train.optimizer = "adamp"
        config.train.unclipped = ("match",)
        second = {**STAGE, "fresh_optimizer": True, "lr_factor": 0.1}
        config.train.stages = ({**STAGE, "frozen": ("cnn", "words")}, second)
    if model == "dxr":
        config.train.steps = 25 * EPOCH
        config.train.lr = 5e-4
        config.train.decay = "step"
        config.train.decay_at = 0.6
        config.train.optimizer = "adamw"
        config.train.weight_decay = 1e-4
        config.train.lr_factors.update({"bert": 0.1, "cnn": 0.01})
        config.train.stages = ({"steps": EPOCH, "frozen": ("cnn",)}, {"steps": 24 * EPOCH})
    return config
