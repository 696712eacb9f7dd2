"""Generated clips of moving coloured shapes with captions, made on the spot, no files needed.

    hmgr-jax train --config clips
    hmgr-jax train --config clips:vse

Every caption says which way two objects move, or which of them moves first. The four clips of a
family share every state of every object and differ in its order: recall measures which objects
are there, ``family/accuracy`` the motion (chance 25%). ``:vse`` is the mean of the frames, without
graph and memory; it cannot know their order.

Hardware: a laptop, 5 to 8
minutes of a core.
"""

from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

STEPS = 500
HMGR = {
    "graph_layers": 1,
    # Motion has to be in the code from the first step on: from next to nothing on both sides, video
    # and text do not find it.
    "frame_times": True,
    "residual_gain": 1.0,
    "text_graph": False,
    "pool_dropout": 0.0,
}


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on generated clips."""
    fields: dict[str, Any] = {
        "visual": "video",
        "dim": 128,
        "word_dim": 64,
        # Hinges on the hardest negative, always a sibling, fall back to their plateau.
        "objective": "infonce",
    }
    config = recipe("clips", model, **fields, **(HMGR if model == "hmgr" else {"pool": "mean"}))
    config.data.source = "clips"
    config.data.visual = "video"
    config.data.batching = "groups"
    config.data.buckets = (24,)
    # Words of opposite directions begin apart: what one clip's captions share makes words alike.
    config.data.vectors = "captions"
    config.data.clips.train = 8000
    config.train.steps = STEPS
    config.train.batch_size = 128
    config.train.lr = 2e-3
    config.train.warmup_steps = 60
    config.train.decay = "cosine"
    config.train.log_steps = 20
    config.train.eval_steps = 100
    config.eval.protocols = ("clips", "family")
    config.eval.dev_protocols = ("clips", "family")
    if model == "hmgr":
        config.eval.calibration = "bank"
    return config
