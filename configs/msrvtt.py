"""MSR-VTT, frame features of a prepared folder, at the sizes of HGR and VSE∞.

    hmgr-jax train --config msrvtt --config.data.root=DATA/msrvtt
    hmgr-jax train --config msrvtt:vse --config.data.root=DATA/msrvtt
    hmgr-jax train --config msrvtt:hmgr-1ka --config.data.root=DATA/msrvtt_1ka
    hmgr-jax train --config msrvtt:mini --config.data.root=DATA/msrvtt_mini        or vse-mini

Files in ``data.root``: ``{train,dev,test}_ims.npy`` [clips, frames, features] (float16 or
float32), ``_counts.npy`` with the true number of frames of each clip, ``_caps.txt``, ``_ids.txt``
and ``_cap_ids.txt``. Of longer clips 20 frames are read, evenly spread
(``--config.model.frame_sampling=random`` draws one of each of 20 stretches in training, of clips
that were prepared with more: ``prepare msrvtt --frames 60``). Words are
initialised from GloVe with ``--config.data.vectors=glove.6B.300d.txt``, else at random.

The full split has 6,513 / 497 / 2,990 clips (papers say 6,573) with 20 captions each: every caption
is a query, and a clip counts its best caption. ``-1ka`` is the 1k-A split: 9,000 clips for train
and dev, and 1,000 test clips with one caption each. ``-mini`` (``mini`` is ``hmgr-mini``) is for
some hundred clips with one caption each: a small network, InfoNCE, strong dropouts.

Hardware: one accelerator with 16 GB, or several; ``-mini``: a minute of a laptop. Only ``-mini``
was measured: the features of the full set are not ours to ship.

Schedule: 50 epochs at 1e-4 as HGR's, a tenth of it for the last third of them as VSE∞'s; times of
frames are off, as there (``--config.model.frame_positions=True`` turns them on).
"""

from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.errors import UserError
from hmgr_jax.training.config import recipe

EPOCHS, BATCH = 50, 128
CAPTIONS = {"": 6513 * 20, "1ka": 8550 * 20}
"""Training captions of the full split, and of 1k-A with a twentieth of its videos held out."""
PROTOCOLS = {"": "msrvtt", "1ka": "msrvtt1ka"}


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on MSR-VTT; ``NAME-1ka`` is NAME on the 1k-A split."""
    if model.rpartition("-")[2] == "mini":
        return _mini(model.rpartition("-")[0] or "hmgr")
    system, _, split = model.partition("-")
    if split not in PROTOCOLS:
        raise UserError(f"MSR-VTT is split in full or as 1ka, not as {split}: give {system}-1ka.")
    fields: dict[str, Any] = {
        "visual": "video",
        "dim": 1024,
        "frames": 20,
        "feature_dropout": 0.2,
        "vector_dropout": 0.2,
    }
    config = recipe(f"msrvtt{split}", system, **fields)
    config.data.visual = "video"
    config.data.max_words = 30
    config.data.buckets = (16, 24, 32)
    config.train.batch_size = BATCH
    config.train.steps = EPOCHS * (CAPTIONS[split] // BATCH)
    config.train.lr = 1e-4
    config.train.decay = "step"
    config.train.decay_at = 0.7
    config.train.log_steps = 50
    config.eval.protocols = (PROTOCOLS[split],)
    if system == "hmgr":
        config.eval.calibration = "bank"
    config.eval.dev_protocols = ("msrvtt",)
    return config


def _mini(system: str) -> ConfigDict:
    """Some hundred clips with one caption each."""
    fields: dict[str, Any] = {
        "visual": "video",
        "text": "words",
        "dim": 128,
        "objective": "infonce",
        "feature_dropout": 0.3,
        "region_dropout": 0.5,
        "word_dropout": 0.3,
        "vector_dropout": 0.3,
    }
    graph = {"graph_layers": 1} if system == "hmgr" else {}
    config = recipe("msrvttmini", system, **fields, **graph)
    config.data.visual = "video"
    config.data.vectors = "captions"
    config.data.max_words = 30
    config.data.buckets = (16, 24, 32)
    config.train.batch_size = 64
    config.train.steps = 30 * 11
    config.train.lr = 1e-3
    config.train.warmup_steps = 30
    config.train.decay = "cosine"
    config.train.eval_steps = 5 * 11
    config.eval.protocols = ("msrvtt",)
    config.eval.dev_protocols = ("msrvtt",)
    if system == "hmgr":
        config.eval.calibration = "bank"
    return config
