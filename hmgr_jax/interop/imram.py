"""IMRAM's released code (github.com/HuiChen24/IMRAM): names of its state_dict and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hmgr_jax.interop.layouts import bidirectional_gru, linear, weight_norm
from hmgr_jax.interop.names import Names, same

REGIONS = 36
"""Regions per image in the features of the release."""
IMAGE = "img_enc.fc_local"


def names(hyperparameters: Mapping[str, Any]) -> Names:
    """Official names of all parameters of the released module.

    It always has the units of both directions: ``linear_t2i`` and ``gate_t2i`` refine words
    (text-IMRAM), ``linear_i2t`` and ``gate_i2t`` regions (image-IMRAM). The input of both layers of
    a unit is [query; context].
    """
    basic = hyperparameters["region_embedding"] != "weight_norm"
    regions = linear if basic else weight_norm
    units = {"out": "linear", "gate": "gate"}
    return (
        *regions(IMAGE, "image/regions/linear"),
        same("txt_enc.embed.weight", "text/words/vectors", words=True),
        *bidirectional_gru("txt_enc.rnn", "text/words/gru"),
        *(
            entry
            for direction in ("t2i", "i2t")
            for ours, official in units.items()
            for entry in linear(f"{official}_{direction}", f"units/{direction}/{ours}")
        ),
    )


def features(state: Mapping[str, np.ndarray]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the items that weights were trained on, as ``Plan.features`` has them."""
    found = [state[n] for n in (f"{IMAGE}.weight", f"{IMAGE}.weight_v") if n in state]
    size = found[0].shape[-1] if found and found[0].ndim == 2 else 2048
    image: dict[str, tuple[int, ...]] = {"regions": (REGIONS, size), "n_regions": ()}
    return {"image": image, "text": {"tokens": (1,), "lengths": ()}}


def options(given: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Our hyper-parameters according to the released code and the options of its training script.

    A state_dict with the units of one direction determines the variant.
    """
    read: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "model_mode": ("variant", lambda value: str(value).removesuffix("_IMRAM")),
        "iteration_step": ("steps", int),
        "lambda_softmax": ("sharpness", float),
        "raw_feature_norm": ("raw_norm", str),
        "no_IMRAM_norm": ("memory_norm", lambda value: not value),
    }
    fixed = {"region_scale": "none", "slope": 0.1, "unit": "gate_full", "score_step": 0}
    from_file = {ours: parse(given[name]) for name, (ours, parse) in read.items() if name in given}
    units = {"text": "linear_t2i.weight", "image": "linear_i2t.weight"}
    able = [variant for variant, name in units.items() if name in state]
    return fixed | from_file | ({"variant": able[0]} if len(able) == 1 else {})
