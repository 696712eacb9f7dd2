r"""MS-COCO from pictures: Karpathy's splits, and every protocol of its test images.

    hmgr-jax train --config coco_images --config.data.root=DATA/coco
    hmgr-jax train --config coco_images:dxr --config.data.root=DATA/coco \
        --config.init.cnn=resnet152.pth --config.init.bert=DATA/bert-base-uncased

Files in ``data.root``: ``dataset_coco.json`` (Karpathy), ``train2014`` and ``val2014`` with the
pictures, and ``annotations/captions_val2014.json`` and ``instances_val2014.json`` of COCO. Trained
on train and restval, 113,287 pictures.

COCO 5K and 1K, PMRP (5K and 1K), ECCV Caption and CxC are reported; the last two need the package
``eccv_caption`` (``pip install 'hmgr-jax[eccv]'``). ``:pcme`` has the released setting: ResNet-152
(random without ``init.cnn``), whose weights and words are frozen for 30 of 60 epochs. ``:dxr`` has
ResNet-152 at a hundredth of the rate, frozen in the first epoch, and BERT-base.

Hardware: an accelerator with 32 GB, or several; ``--config.data.workers=8`` decodes in as many
processes. Never measured: the pictures are not ours to ship.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe
from hmgr_jax.training.recipe_parts import WORD_NOISE, dxr_with_bert, released_pcme

EPOCH = 4425


def get_config(model: str = "pcme") -> ConfigDict:
    """The recipe of one system on COCO's pictures."""
    config = recipe("coco_images", model, **(WORD_NOISE if model == "pcme" else {}))
    config.data.source = "pictures"
    config.data.captions = "dataset_coco.json"
    config.data.numbered = "annotations/captions_val2014.json"
    config.data.instances = "annotations/instances_val2014.json"
    config.data.splits.test = "testall"
    config.train.steps = 60 * EPOCH
    config.train.lr = 2e-4
    config.train.decay = "cosine"
    config.train.log_steps = 100
    config.eval.protocols = ("coco5k", "coco1k", "pmrp", "pmrp1k", "eccv", "cxc")
    if model == "pcme":
        released_pcme(config, EPOCH, ["cnn", "words"])
    if model == "dxr":
        dxr_with_bert(config, EPOCH)
        config.train.lr_factors.cnn = 0.01
        config.train.stages = ({"steps": EPOCH, "frozen": ("cnn",)}, {"steps": 24 * EPOCH})
    return config
