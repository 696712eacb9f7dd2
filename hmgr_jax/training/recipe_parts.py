"""What several recipes share: sizes of small runs, and the schedules of released systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

TO_THE_END = 10**9
"""As ``sum_warmup_steps``: the sum over all negatives throughout."""
RESG = {"objective": "triplet", "sum_warmup_steps": TO_THE_END}
"""ReSG's other losses are sums over the batch, weighed against hinges."""
SMALL_BERT = {"bert_layers": 2, "bert_width": 128, "bert_heads": 4, "bert_intermediate": 256}
SMALL_GIN: Mapping[str, Any] = {
    "image_hidden": (256,),
    "filters": (8, 8),  # with one filter, a bad start is not recovered from
    "l2": 0.0,
}
SMALL_PCME: Mapping[str, Any] = {
    "objective": "soft_contrastive",  # its own
    "init_scale": 5.0,
    "init_shift": 5.0,
    "log_sigma_start": -4.0,
    "match": "group",
    "vib_beta": 1e-4,
}
WORD_NOISE = {"word_dropout": 0.1, "word_removal": 0.1}
"""The released PCME's."""


def use_adamp(config: ConfigDict) -> None:
    """The released PCME's optimiser: scale and shift of the match are not clipped."""
    config.train.optimizer = "adamp"
    config.train.unclipped = ("match",)


def use_adamw(config: ConfigDict) -> None:
    """DXR's optimiser."""
    config.train.optimizer = "adamw"
    config.train.weight_decay = 1e-4


def released_pcme(config: ConfigDict, epoch: int, frozen: Sequence[str]) -> None:
    """The released PCME's schedule on MS-COCO, for ``epoch`` steps per epoch.

    30 epochs with ``frozen`` parts, then 30 of everything at a tenth of the rate, a cosine each.
    """
    stage = {"steps": 30 * epoch, "own_schedule": True}
    config.train.steps = 60 * epoch
    config.train.decay = "cosine"
    use_adamp(config)
    second = {**stage, "fresh_optimizer": True, "lr_factor": 0.1}
    config.train.stages = ({**stage, "frozen": tuple(frozen)}, second)


def dxr_with_bert(config: ConfigDict, epoch: int) -> None:
    """DXR's schedule: 25 epochs, a tenth of the rate for BERT and a tenth of all after 15."""
    config.train.steps = 25 * epoch
    config.train.lr = 5e-4
    config.train.decay = "step"
    config.train.decay_at = 0.6
    use_adamw(config)
    config.train.lr_factors.bert = 0.1
