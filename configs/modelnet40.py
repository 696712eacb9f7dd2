"""ModelNet40 (Wu et al., CVPR 2015): 12,311 objects of 40 classes as views, clouds and meshes.

    python -m hmgr_jax.main --config configs/modelnet40.py --config.data.root=DATA/modelnet40
    python -m hmgr_jax.prepare modelnet --source DATA/ModelNet40 --out DATA/modelnet40

``data.root`` is what the second command makes of the OFF files, or a folder that holds
``modelnet40_ply_hdf5_2048`` with, beside it, rendered views (``ModelNet40-Images-180``) and meshes
(``ModelNet40_Mesh``), as they are passed on; what is there is trained on. Objects that lack a part
are left out by ``--config.data.corrupt=skip``.

Sizes and schedule are those of the cross-modal center loss (Jing et al., CVPR 2021): two views of
112 by 112, 1,024 points, 1,024 faces, batches of 96, 27,500 steps, a tenth of the rate after every
10,000. One in twenty objects of train is held out to choose the step by, which the paper does not.
Centres have plain SGD of their own; those that move instead are no parameters, and have none:
``--config.model.center_update=wen_ema '--config.train.plain=()'``.

Hardware: a GPU; a batch is 43 MB.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

STEPS, DECAY_EVERY = 27_500, 10_000


def get_config(model: str = "center3d") -> ConfigDict:
    """The recipe of one system on ModelNet40."""
    config = recipe("modelnet40", model)
    config.data.source = "modelnet"
    config.data.image_size = 112
    config.data.points = 1024
    config.data.faces = 1024
    config.train.steps = STEPS
    config.train.batch_size = 96
    config.train.optimizer = "sgd"
    config.train.lr = 1e-3
    config.train.clip = 0.0
    config.train.decay_at = DECAY_EVERY / STEPS
    config.train.log_steps = 20
    config.train.eval_steps = 500
    config.eval.protocols = ("modelnet",)
    config.eval.dev_protocols = ("map",)
    config.eval.select = "mAP"
    if model == "center3d":
        config.train.decay = "steps"
        config.train.weight_decay = 1e-3
        config.train.plain = ("centers",)
    return config
