"""Flickr8k: 6,000 training pictures as regions in SCAN's layout, or a folder of that size.

    hmgr-jax train --config f8k --config.data.root=DATA/flickr8k          or f8k:SYSTEM

Systems: hmgr, vse, imram, scan, racg, racg_strict, resg, pcme, dxr, gin, sckr. Hardware: a laptop.

Files in ``data.root``: ``{train,dev,test}_ims.npy`` [rows, regions, features] and ``_caps.txt``.
If a folder ``f8k_text`` with ``Flickr8k.token.txt`` and ``Flickr_8k.trainImages.txt`` lies beside
it, word vectors are learnt from the captions of that whole train list; otherwise from the train
split alone, and the run says so.

docs/results.md has the numbers. Systems train with InfoNCE, ``:resg`` on hinges, ``:pcme``,
``:gin`` and ``:sckr`` with their own losses. ``:hmgr`` and ``:vse`` read word vectors without a
GRU, three times as fast as with it. Evaluation calibrates the scores of ``:hmgr``
(``--config.eval.calibration=bank`` those of any system). At the batch of 64 of pair scorers the
steps are 4 epochs.

Features of a ReLU network that are not reduced want ``--config.model.region_scale=sqrt``.

``:imram`` and ``:scan`` let words attend to regions (K=3 and K=1);
``--config.model.variant=full`` is the model of both directions. ``:racg``, ``:racg_strict`` and
``:resg`` use boxes and the labels of COCO's 80 classes if the folder has them, ``:resg`` word
graphs too (``hmgr-jax prepare dependencies``). ``:dxr`` has a small BERT without weights.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.models import properties
from hmgr_jax.training.config import known_fields, recipe
from hmgr_jax.training.recipe_parts import (
    RESG,
    SMALL_BERT,
    SMALL_GIN,
    SMALL_PCME,
    use_adamp,
    use_adamw,
)

STEPS = 1872  # 8 epochs of 234 steps
CLASSES = 80  # COCO's, where the folder has labels
HMGR = {"graph_layers": 1, "text": "words"}
OF_MODEL: dict[str, Mapping[str, Any]] = {
    "hmgr": HMGR,
    "vse": HMGR,
    "dxr": SMALL_BERT,
    "imram": {"variant": "text"},
    "scan": {"variant": "text"},
    "racg": {"object_classes": CLASSES},
    "racg_strict": {"object_classes": CLASSES},
    "resg": {"object_classes": CLASSES, "graph_layers": 1, **RESG},
    "gin": SMALL_GIN,
    "sckr": {**SMALL_GIN, "word_relations": "SC"},  # K needs data.triples
    "pcme": SMALL_PCME,
}


def get_config(model: str = "hmgr") -> ConfigDict:
    """The recipe of one system on Flickr8k."""
    system = properties(model)
    fields: dict[str, Any] = {}
    if system.reads != "features":  # such a system refuses this folder when it is opened
        fields = known_fields(
            model,
            dim=256,
            feature_dropout=0.2,
            region_dropout=0.5,
            word_dropout=0.3,
            vector_dropout=0.3,
            objective="infonce",
        )
    config = recipe("f8k", model, **{**fields, **OF_MODEL.get(model, {})})
    config.data.vectors = "captions"
    config.data.captions_from = "../f8k_text"
    config.data.buckets = (20, 24, 28, 32, 40, 96)
    config.train.steps = STEPS
    config.train.lr = 2e-3
    config.train.warmup_steps = 100
    config.train.decay = "cosine"
    config.eval.protocols = ("f8k",)
    if model == "hmgr":
        config.eval.calibration = "bank"
    if model == "pcme":
        use_adamp(config)
    if model == "dxr":
        use_adamw(config)
        config.train.lr = 1e-3
    if system.score == "pairs":  # a step's time grows with the square of the batch
        config.train.batch_size = 64
    return config
