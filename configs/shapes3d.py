"""Generated solids as views, point clouds and meshes, made on the spot, no files needed.

    hmgr-jax train --config shapes3d
    hmgr-jax train --config shapes3d --config.data.solids.folder=DATA/solids

Twelve classes of turned, cut, stacked and pierced solids, stretched, bent and turned about the
vertical, with proportions that overlap between classes. Views are 48 by 48 pixels, clouds 256
points, meshes up to 320 faces. A solid takes 16 ms of a core to be made, once a run; with the
second command it is kept for other runs. Centres have plain SGD of their own, as in ``modelnet``;
moving centres (``--config.model.center_update=wen_ema``) are no parameters, and have none:
``'--config.train.plain=()' '--config.train.unclipped=()'``.

Hardware: a laptop, 7 minutes of a core.
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

STEPS = 300
SMALL = {
    "dim": 128,
    "head_dim": 64,
    "cnn": "resnet10",
    "cnn_width": 16,
    "cloud_width": 16,
    "mesh_width": 16,
    "neighbours": 10,
}


def get_config(model: str = "center3d") -> ConfigDict:
    """The recipe of one system on generated solids."""
    config = recipe("shapes3d", model, **(SMALL if model == "center3d" else {}))
    config.data.source = "solids"
    config.data.image_size = 48
    config.data.points = 256
    config.data.faces = 320
    config.data.objects.crop = 48
    config.data.objects.views = 4
    config.train.steps = STEPS
    config.train.batch_size = 32
    config.train.lr = 1e-3
    config.train.decay = "cosine"
    config.train.warmup_steps = 30
    config.train.log_steps = 20
    config.train.eval_steps = 100
    config.eval.protocols = ("modelnet",)
    config.eval.dev_protocols = ("map",)
    config.eval.select = "mAP"
    if model == "center3d":
        config.train.plain = ("centers",)
        config.train.unclipped = ("centers",)  # the norm is that of the networks
    return config
