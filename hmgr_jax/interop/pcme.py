"""PCME's released code (github.com/naver-ai/pcme): names of its encoders' state_dicts."""

from __future__ import annotations

from hmgr_jax.interop.layouts import bidirectional_gru, linear, linear_without_bias
from hmgr_jax.interop.names import Entry, Names, same


def names(image: str = "", text: str = "") -> Names:
    """Official names of the encoders' parameters, without those of the CNN (`interop.resnet`).

    Args:
        image: what stands before every name of the image encoder.
        text: the same of the text encoder.
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
    """Of the mean and of sigma."""
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
