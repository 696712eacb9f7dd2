"""A small BERT in the layout of Hugging Face, with weights drawn at random."""

import json

import numpy as np
import safetensors.numpy

from hmgr_jax.interop import bert
from hmgr_jax.interop.names import from_params
from hmgr_jax.layers.bert import Sizes

PIECES = ("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "of", "##s")
PIECES += ("red", "blue", "green", "square", "circle", "left", "right")
SIZES = Sizes(len(PIECES), width=8, layers=2, heads=2, intermediate=12, positions=32)
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": SIZES.vocabulary,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
}


def written(folder, params, rename=lambda name: name, **config):
    """A folder of ``params``, whose official names go through ``rename``."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    state = from_params(bert.names(SIZES.layers), params)
    state = {rename(name): np.ascontiguousarray(x) for name, x in state.items()}
    safetensors.numpy.save_file(state, folder / "model.safetensors")
    return folder
