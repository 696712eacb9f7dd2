"""PCME's released code (github.com/naver-ai/pcme): names of its state_dicts, and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hmgr_jax.interop import resnet
from hmgr_jax.interop.layouts import bidirectional_gru, linear, linear_without_bias
from hmgr_jax.interop.names import Entry, Names, same, within


def encoder_names(image: str = "", text: str = "") -> Names:
    """Official names of the encoders' parameters, without those of the CNN (`interop.resnet`).

    ``image`` and ``text`` are prefixes of the names of the two encoders.
    """
    return (
        *linear(f"{image}fc", "image/fc"),
        *_heads(image, "image"),
        *linear(f"{image}uncertain_net.fc2", "image/fc_sigma"),
        same(f"{text}embed.weight", "text/words/vectors", words=True),
        *bidirectional_gru(f"{text}rnn", "text/gru"),
        *_heads(text, "text"),
        *bidirectional_gru(f"{text}uncertain_net.rnn", "text/gru_sigma"),
    )


def _heads(side: str, path: str) -> list[Entry]:
    """The heads of the mean and of sigma."""
    found: list[Entry] = []
    for official, head in (("pie_net", "mean"), ("uncertain_net", "sigma")):
        attention = f"{side}{official}.attention"
        found.append(linear_without_bias(f"{attention}.w_1", f"{path}/{head}/attention/hidden"))
        found.append(linear_without_bias(f"{attention}.w_2", f"{path}/{head}/attention/out"))
        found += linear(f"{side}{official}.fc", f"{path}/{head}/fc")
    norm = f"{side}pie_net.layer_norm"
    found.append(same(f"{norm}.weight", f"{path}/mean/norm/scale"))
    found.append(same(f"{norm}.bias", f"{path}/mean/norm/bias"))
    return found


IMAGE, TEXT = "img_enc.", "txt_enc."
SIDE = 224
"""Size of a picture in pixels; the released encoder needs a feature map of 7 x 7 cells."""
MATCH = {"criterion.negative_scale": "params/match/scale", "criterion.shift": "params/match/shift"}


def names(hyperparameters: Mapping[str, Any]) -> Names:
    """Official names of the parameters, scale and shift, the CNN and its running statistics."""
    cnn, kind = f"{IMAGE}cnn.", hyperparameters["cnn"]
    stem, layers = (f"{cnn}conv1", f"{cnn}bn1"), f"{cnn}layer{{}}"
    of_pixels = hyperparameters["picture_size"] > 0
    return (
        *within(encoder_names(IMAGE, TEXT), resnet.PARAMS),
        *(
            Entry((official,), (path,), lambda x: (x.reshape(()),), lambda x: (x.reshape(1),))
            for official, path in MATCH.items()
        ),
        *(resnet.names(kind, "image/cnn/", stem, layers) if of_pixels else ()),
    )


def features(_: Mapping[str, np.ndarray]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the items that weights were trained on, as ``Plan.features`` has them."""
    return {"image": {"pixels": (SIDE, SIDE, 3)}, "text": {"tokens": (1,), "lengths": ()}}


def options(given: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Our hyper-parameters according to shapes, the released code and the options in the file."""
    read: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "model.cnn_type": ("cnn", str),
        "model.img_attention": ("img_attention", bool),
        "model.txt_attention": ("txt_attention", bool),
        "model.img_probemb": ("img_probemb", bool),
        "model.txt_probemb": ("txt_probemb", bool),
        "model.n_samples_inference": ("samples_eval", lambda value: max(1, int(value))),
        "criterion.num_samples": ("samples_train", int),
        "criterion.init_negative_scale": ("init_scale", float),
        "criterion.init_shift": ("init_shift", float),
        "criterion.vib_beta": ("vib_beta", float),
        "criterion.uniform_lambda": ("uniform_lambda", float),
    }
    from_file = {ours: parse(given[name]) for name, (ours, parse) in read.items() if name in given}
    fixed: dict[str, Any] = {"sigma_head": "plain", "bigru_pool": "last_index"}
    fixed |= {"objective": "soft_contrastive", "kl_form": "code", "uniform_replace": True}
    fixed |= {"proposals": 1, "logit_scale": 2.0, "log_sigma_start": 0.0}
    return fixed | _sizes(state) | from_file


def _sizes(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Hyper-parameters that the shapes of tensors determine, for those in the file."""
    found: dict[str, Any] = {}
    whole, words = state.get(f"{IMAGE}fc.weight"), state.get(f"{TEXT}embed.weight")
    stem = state.get(f"{IMAGE}cnn.conv1.weight")
    if whole is not None and whole.ndim == 2:
        found["dim"] = whole.shape[0]
    if words is not None and words.ndim == 2:
        found["word_dim"] = words.shape[1]
    if stem is not None and stem.ndim == 4:
        found |= {"cnn_width": stem.shape[0], "cnn_small_stem": stem.shape[2] < 7}
    return found
