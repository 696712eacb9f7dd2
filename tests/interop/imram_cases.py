"""IMRAM's official state_dict, our parameter tree, and the known answers of the released code."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from hmgr_jax.layers.recurrent import BiGRU

GOLDEN = Path(os.environ.get("HMGR_TEST_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
D, WORD, IN, V = 5, 4, 7, 9
DIRECTIONS = {"text": ("t2i",), "image": ("i2t",), "full": ("t2i", "i2t")}


def official(seed=0, weight_norm=False, words=V):
    """A state_dict as the released module has it."""
    rng = np.random.default_rng(seed)
    shapes = {"img_enc.fc_local.bias": (D,), "txt_enc.embed.weight": (words, WORD)}
    if weight_norm:
        shapes |= {"img_enc.fc_local.weight_g": (), "img_enc.fc_local.weight_v": (D, IN)}
    else:
        shapes["img_enc.fc_local.weight"] = (D, IN)
    for suffix in ("", "_reverse"):
        shapes[f"txt_enc.rnn.weight_ih_l0{suffix}"] = (3 * D, WORD)
        shapes[f"txt_enc.rnn.weight_hh_l0{suffix}"] = (3 * D, D)
        shapes[f"txt_enc.rnn.bias_ih_l0{suffix}"] = (3 * D,)
        shapes[f"txt_enc.rnn.bias_hh_l0{suffix}"] = (3 * D,)
    for direction in ("t2i", "i2t"):
        for layer in ("linear", "gate"):
            shapes[f"{layer}_{direction}.weight"] = (D, 2 * D)
            shapes[f"{layer}_{direction}.bias"] = (D,)
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def template(variant="full", weight_norm=False, sizes=(D, WORD, IN, V)):
    """Our parameter tree."""
    d, word, inputs, words = sizes

    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, np.float32)

    def linear(fan_in, fan_out):
        return {"kernel": leaf(fan_in, fan_out), "bias": leaf(fan_out)}

    x, lengths = leaf(1, 3, word), jax.ShapeDtypeStruct((1,), np.int32)
    gru = jax.eval_shape(lambda: BiGRU(d).init(jax.random.key(0), zeros(x), zeros(lengths)))
    regions = linear(inputs, d) | ({"scale": leaf()} if weight_norm else {})
    return {
        "image": {"regions": {"linear": regions}},
        "text": {"words": {"vectors": leaf(words, word), "gru": gru["params"]}},
        "units": {
            direction: {"gate": linear(2 * d, d), "out": linear(2 * d, d)}
            for direction in DIRECTIONS[variant]
        },
    }


def zeros(x):
    return jax.numpy.zeros(x.shape, x.dtype)


def golden(case):
    """(meta, state_dict, arrays) of a known-answer case; skips where there is none."""
    path = GOLDEN / f"{case}.npz"
    if not path.is_file():
        pytest.skip(f"{path} not found (set HMGR_TEST_GOLDEN to a copy of the known answers)")
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    meta = json.loads(str(arrays.pop("meta")))
    rng = np.random.default_rng(meta["seed"])
    state = {}
    for name, shape in meta["params"]:  # biases 0.1 n, others n / sqrt(fan in), as the folder says
        scale = 0.1 if len(shape) == 1 else np.sqrt(np.prod(shape[1:])) ** -1
        state[name] = np.float32(rng.standard_normal(shape) * scale)
    return meta, state, arrays
