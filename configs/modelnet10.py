"""ModelNet10 (Wu et al., CVPR 2015): 4,899 objects of 10 classes as views, clouds and meshes.

    python -m hmgr_jax.main --config configs/modelnet10.py --config.data.root=DATA/modelnet10
    python -m hmgr_jax.prepare modelnet --source DATA/ModelNet10 --out DATA/modelnet10

As ``configs/modelnet40.py``, with the clouds of ``modelnet10_hdf5_2048`` and 22,500 steps; views
and meshes are found by name, so those of ModelNet40 serve as well.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

STEPS, DECAY_EVERY = 22_500, 10_000


def get_config(model: str = "center3d") -> ConfigDict:
    """The recipe of one system on ModelNet10."""
    config = recipe("modelnet10", model)
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
