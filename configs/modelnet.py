r"""ModelNet40 and ModelNet10 (Wu et al., CVPR 2015) as views, clouds and meshes.

    hmgr-jax prepare modelnet --source DATA/ModelNet40 --out DATA/modelnet40
    hmgr-jax train --config modelnet --config.data.root=DATA/modelnet40
    hmgr-jax train --config modelnet:10 --config.data.root=DATA/modelnet10

``SYSTEM``, ``10`` or ``SYSTEM-10`` (also ``40``, the default). 12,311 objects of 40 classes, or
4,899 of 10.

``data.root`` is what the first command makes of the OFF files, or a folder that holds
``modelnet40_ply_hdf5_2048`` (``modelnet10_hdf5_2048``) with, beside it, rendered views
(``ModelNet40-Images-180``) and meshes (``ModelNet40_Mesh``), as commonly shared; a missing modality
is left out. Views and meshes are found by name, so those of ModelNet40 serve ModelNet10 too.
``--config.data.corrupt=skip`` leaves out objects that lack a part.

Sizes and schedule are those of the cross-modal center loss (Jing et al., CVPR 2021): two views of
112 by 112, 1,024 points, 1,024 faces, batches of 96, 27,500 (22,500) steps, a tenth of the rate
after every 10,000. One in twenty objects of train is held out to select the step, which the paper
does not. Centres have plain SGD of their own; moving centres are no parameters, and have none:
``--config.model.center_update=wen_ema '--config.train.plain=()'``.

Hardware: a GPU; a batch is 43 MB.
"""

from ml_collections import ConfigDict

from hmgr_jax.errors import UserError
from hmgr_jax.training.config import recipe

STEPS = {"40": 27_500, "10": 22_500}
DECAY_EVERY = 10_000


def get_config(model: str = "center3d") -> ConfigDict:
    """The recipe of one system on ModelNet40, or on ModelNet10."""
    system, _, classes = ("center3d", "", model) if model in STEPS else model.partition("-")
    if classes and classes not in STEPS:
        raise UserError(f"ModelNet has 40 or 10 classes, not {classes}: give {system}-10.")
    classes = classes or "40"
    config = recipe(f"modelnet{classes}", system)
    config.data.source = "modelnet"
    config.data.image_size = 112
    config.data.points = 1024
    config.data.faces = 1024
    config.train.steps = STEPS[classes]
    config.train.batch_size = 96
    config.train.optimizer = "sgd"
    config.train.lr = 1e-3
    config.train.clip = 0.0
    config.train.decay_at = DECAY_EVERY / STEPS[classes]
    config.train.log_steps = 20
    config.train.eval_steps = 500
    config.eval.protocols = ("modelnet",)
    config.eval.dev_protocols = ("map",)
    config.eval.select = "mAP"
    if system == "center3d":
        config.train.decay = "steps"
        config.train.weight_decay = 1e-3
        config.train.plain = ("centers",)
    return config
