"""Weights and sizes of a BERT from a local folder in Hugging Face's layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import read_object
from hmgr_jax.interop.layouts import linear
from hmgr_jax.interop.names import Names, same, to_params
from hmgr_jax.interop.transformers_folder import (
    CONFIG,
    check_parameters,
    positive,
    read_state,
)
from hmgr_jax.layers.bert import Sizes
from hmgr_jax.shapes import Tree

PREFIX = "bert."
"""Prefix of the encoder's names in a BERT with a head."""
_SKIPPED = ("pooler.", "embeddings.position_ids")  # not part of the encoder
_KEYS = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "positions": "max_position_embeddings",
    "segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
}
_FIXED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "layer_norm_eps": 1e-12,
}


def read_sizes(folder: str | Path) -> Sizes:
    """The sizes in a folder's ``config.json``; raises `UserError` unless it describes a BERT."""
    path = Path(folder, CONFIG)
    advice = "give a folder of a BERT as transformers saves it."
    config = read_object(path, advice)
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise UserError(f"{path} has {key} {config[key]!r}, not {value!r}: {advice}")
    try:
        given = {name: key for name, key in _KEYS.items() if key in config}
        dropout = config.get("hidden_dropout_prob", 0.0)
        if type(dropout) not in (int, float) or not 0 <= dropout < 1:
            raise ValueError(f"hidden_dropout_prob is {dropout!r:.40}, not in [0, 1)")
        found = {n: config[k] if n == "dropout" else positive(config, k) for n, k in given.items()}
        sizes = Sizes(**found)
        check_parameters(sizes.vocabulary, sizes.width, sizes.layers, sizes.intermediate)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} gives no sizes of a BERT ({error}): {advice}") from None
    return sizes


def names(layers: int) -> Names:
    """Hugging Face's names of the parameters of `hmgr_jax.layers.bert.Bert`."""
    tables = {"words": "word", "positions": "position", "segments": "token_type"}
    found = [
        same(f"embeddings.{official}_embeddings.weight", f"embeddings/{ours}")
        for ours, official in tables.items()
    ]
    found += _norm("embeddings", "embeddings/norm")
    for number in range(layers):
        official, ours = f"encoder.layer.{number}", f"encoder/layer{number}"
        for name in ("query", "key", "value"):
            found += linear(f"{official}.attention.self.{name}", f"{ours}/{name}")
        found += linear(f"{official}.attention.output.dense", f"{ours}/attention_out")
        found += _norm(f"{official}.attention.output", f"{ours}/attention_norm")
        found += linear(f"{official}.intermediate.dense", f"{ours}/hidden")
        found += linear(f"{official}.output.dense", f"{ours}/out")
        found += _norm(f"{official}.output", f"{ours}/norm")
    return found


def _norm(official: str, path: str) -> Names:
    of = f"{official}.LayerNorm"
    return (same(f"{of}.weight", f"{path}/scale"), same(f"{of}.bias", f"{path}/bias"))


def encoder_weights(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The encoder's arrays by the names of ``BertModel``, of a BERT with or without a head.

    In old files ``weight`` and ``bias`` of norms are called ``gamma`` and ``beta``.
    """
    if any(name.startswith(PREFIX) for name in state):
        state = {n.removeprefix(PREFIX): x for n, x in state.items() if n.startswith(PREFIX)}
    new = {".gamma": ".weight", ".beta": ".bias"}
    found = {}
    for name, x in state.items():
        if not name.startswith(_SKIPPED):
            stem, dot, last = name.rpartition(".")
            found[stem + new.get(dot + last, dot + last)] = x
    return found


def read_bert(folder: str | Path, params: Tree) -> Tree:
    """Parameters of a `Bert` from a folder with ``config.json`` and weights, whole or in shards.

    Args:
        folder: saved by transformers, with or without a head.
        params: a template with the shapes and types of all parameters.

    Raises:
        UserError: files are missing or damaged, or hold another network than ``params``.
    """
    sizes = read_sizes(folder)
    path, state = read_state(folder, "give a folder of a BERT with its weights.")
    try:
        return to_params(names(sizes.layers), encoder_weights(state), params)
    except UserError as error:
        raise UserError(f"{path} does not fit model.bert_*: {error}") from None
