"""Weights of CLIP and SigLIP: official names of the towers' parameters, and folders of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.interop.clip import ADVICE, CLIP, Towers, read_towers
from hmgr_jax.interop.layouts import linear, linear_without_bias
from hmgr_jax.interop.names import Entry, Names, same, to_params
from hmgr_jax.interop.transformers_folder import CONFIG, read_state
from hmgr_jax.leaves import with_leaf
from hmgr_jax.shapes import Tree


def names(towers: Towers) -> Names:
    """Official names of the parameters of `Towers.template`."""
    found: list[Entry] = [_number("logit_scale", "scale", towers.kind)]
    image, text = "vision_model", "text_model"
    tables = f"{image}.embeddings"
    found += [
        _patches(f"{tables}.patch_embedding", "image/embed", towers.image.patch),
        same(f"{tables}.position_embedding.weight", "image/positions"),
        *_norm(f"{image}.post_layernorm", "image/norm"),
        same(f"{text}.embeddings.token_embedding.weight", "text/words"),
        same(f"{text}.embeddings.position_embedding.weight", "text/positions"),
        *_norm(f"{text}.final_layer_norm", "text/norm"),
    ]
    found += _blocks(image, "image", towers.image.encoder.layers)
    found += _blocks(text, "text", towers.text.encoder.layers)
    if towers.kind == CLIP:
        found += [
            same(f"{tables}.class_embedding", "image/class"),
            *_norm(f"{image}.pre_layrnorm", "image/first_norm"),
            linear_without_bias("visual_projection", "image/projection"),
            linear_without_bias("text_projection", "text/projection"),
        ]
        return found
    head, pool = f"{image}.head", "image/pool"
    parts = [f"{pool}/attention/{name}" for name in ("query", "key", "value")]
    probe = Entry(
        (f"{head}.probe",),
        (f"{pool}/probe",),
        lambda x: (x[0, 0],),
        lambda x: (x[None, None],),
    )
    found += [
        _number("logit_bias", "bias", towers.kind),
        same(f"{tables}.patch_embedding.bias", "image/embed/bias"),
        probe,
        Entry(
            (f"{head}.attention.in_proj_weight",),
            tuple(f"{part}/kernel" for part in parts),
            lambda x: tuple(x.T for x in np.split(x, 3)),
            lambda *x: (np.concatenate([kernel.T for kernel in x]),),
        ),
        Entry(
            (f"{head}.attention.in_proj_bias",),
            tuple(f"{part}/bias" for part in parts),
            lambda x: tuple(np.split(x, 3)),
            lambda *x: (np.concatenate(x),),
        ),
        *linear(f"{head}.attention.out_proj", f"{pool}/attention/out"),
        *_norm(f"{head}.layernorm", f"{pool}/norm"),
        *_mlp(f"{head}.mlp", f"{pool}/mlp"),
        *linear(f"{text}.head", "text/projection"),
    ]
    return found


def _blocks(official: str, path: str, layers: int) -> Names:
    found: list[Entry] = []
    projections = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
    for number in range(layers):
        theirs, ours = f"{official}.encoder.layers.{number}", f"{path}/encoder/layer{number}"
        for name, own in projections.items():
            found += linear(f"{theirs}.self_attn.{name}", f"{ours}/attention/{own}")
        found += _norm(f"{theirs}.layer_norm1", f"{ours}/attention_norm")
        found += _norm(f"{theirs}.layer_norm2", f"{ours}/mlp_norm")
        found += _mlp(f"{theirs}.mlp", f"{ours}/mlp")
    return found


def _mlp(official: str, path: str) -> Names:
    first, second = f"{official}.fc1", f"{official}.fc2"
    return [*linear(first, f"{path}/hidden"), *linear(second, f"{path}/out")]


def _norm(official: str, path: str) -> Names:
    return [same(f"{official}.weight", f"{path}/scale"), same(f"{official}.bias", f"{path}/bias")]


def _number(official: str, path: str, kind: str) -> Entry:
    """A number: [] in CLIP, [1] in SigLIP."""
    if kind == CLIP:
        return same(official, path)
    return Entry((official,), (path,), lambda x: (x.reshape(()),), lambda x: (x.reshape(1),))


def _patches(official: str, path: str, side: int) -> Entry:
    """A convolution of patches [out, 3, h, w] as a map of their pixels [h * w * 3, out]."""
    return Entry(
        (f"{official}.weight",),
        (f"{path}/kernel",),
        lambda x: (x.transpose(2, 3, 1, 0).reshape(-1, len(x)),),
        lambda x: (x.reshape(side, side, 3, -1).transpose(3, 2, 0, 1),),
    )


def params_of(towers: Towers, state: Mapping[str, np.ndarray]) -> Tree:
    """Parameters like `Towers.template` from an official state_dict.

    Raises `UserError` if tensors are missing, extra or misshaped.
    """
    state = {name: x for name, x in state.items() if not name.endswith(".position_ids")}
    return to_params(names(towers), state, towers.template())


def with_towers(params: Tree, folder: str | Path) -> Tree:
    """Parameters of a system with those of a folder's towers at ``image/clip`` and ``text/clip``.

    Temperature and bias are replaced too where the system has both towers. Raises `UserError` for
    a folder that cannot be read, or towers of other sizes.
    """
    towers = read_towers(folder)
    found = read_params(folder, towers)
    both = CLIP in params["text"] and CLIP in params.get("image", {})
    for side in ("image", "text") if both else ("text",):
        own = params[side][CLIP]
        given = {name: found[side][name] for name in own if name in found[side]}
        if jax.tree.map(jnp.shape, given) != jax.tree.map(jnp.shape, own):
            raise UserError(
                f"The {side} tower of {folder} has other sizes than model.clip_* and "
                "model.picture_*: leave them to init.clip."
            )
        params = with_leaf(params, f"{side}/{CLIP}", given)
    if both and "log_temperature" in params.get("loss", {}):
        start = {"log_temperature": -found["scale"]}
        start |= {"bias": found["bias"]} if {"bias"} <= found.keys() & params["loss"].keys() else {}
        params = {**params, "loss": {**params["loss"], **start}}
    return params


def read_params(folder: str | Path, towers: Towers) -> Tree:
    """Parameters (numpy, float32) of the towers, from a folder's weights.

    Raises `UserError` if files or tensors are missing, damaged or misshaped.
    """
    path, state = read_state(folder, ADVICE)
    try:
        return params_of(towers, state)
    except UserError as error:
        raise UserError(f"{path} does not fit the {CONFIG} beside it: {error}") from None
