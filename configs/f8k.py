"""Flickr8k region or grid features in SCAN's layout.

python -m hmgr_jax.main --config configs/f8k.py --config.data.root=DATA/f8k_precomp
python -m hmgr_jax.main --config configs/f8k.py:vse --config.data.root=DATA/f8k_precomp
"""

from ml_collections import ConfigDict

from hmgr_jax.training.config import recipe

STEPS = 348


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on Flickr8k."""
    fields = {
        "dim": 256,
        "region_scale": "sqrt",
        "region_dropout": 0.2,
        "word_dropout": 0.2,
        "affinity": "softmax",
        "graph_layers": 1,
        # The sum over all negatives to the end: 3,810 captions overfit the hardest one.
        "sum_warmup_steps": STEPS,
    }
    config = recipe("f8k", model, **fields)
    config.data.vectors = "captions"
    config.data.captions_from = "../f8k_text"
    config.data.buckets = (24, 40, 96)
    config.train.steps = STEPS
    config.train.lr = 5e-4
    config.train.warmup_steps = 60
    config.train.decay = "cosine"
    config.eval.protocols = ("f8k",)
    return config
