"""Known answers of IMRAM: fragments, scores, both losses and the gradient of every parameter."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.interop import imram
from hmgr_jax.interop.known_answers import (
    RTOL_NORMS,
    Answer,
    Case,
    Checker,
    in_order,
    training_loss,
)
from hmgr_jax.interop.names import Names, from_params, to_params, unused
from hmgr_jax.layers.masking import l2n
from hmgr_jax.layers.recurrent import GRU, flip
from hmgr_jax.models import get_model
from hmgr_jax.models.base import Codes, Items, Model, Variables
from hmgr_jax.shapes import Array, Float, Int, Tree

INPUTS = ("images", "captions", "lengths")
ENCODERS = {"basic": "linear", "weight_norm": "weight_norm"}
LOSSES = {"loss_sum": ("gradnorm_sum", 0), "loss_hard": ("gradnorm_hard", 1)}
"""{loss: (its gradient norms, the step that uses it)}, with a warm-up of one step."""


def _answers(case: Case) -> Mapping[str, Answer]:
    items = _items(case)
    model = _model(case, items)
    names = imram.names(model.hyperparameters())
    template = jax.eval_shape(model.init, jax.random.key(0)).params
    params = jax.tree.map(jnp.asarray, to_params(names, case.state, template))
    inferred = _inferred(model, params, items)
    answers = {name: Answer(value) for name, value in inferred.items()}
    labels = case.option("grad_names", list)
    for name, (of_norms, step) in LOSSES.items():
        value, gradients = _loss(model, params, items, jnp.int32(step))
        found = official_gradients(names, gradients)
        norms = {n: float(np.linalg.norm(np.float64(g))) for n, g in found.items()}
        norms |= dict.fromkeys(unused(names, template), 0.0)
        answers[name] = Answer(value)
        answers[of_norms] = Answer(in_order(norms, labels), labels, RTOL_NORMS)
    return answers


def official_gradients(names: Names, gradients: Tree) -> dict[str, np.ndarray]:
    """Rename gradients of our parameters to official names.

    PyTorch's GRU adds two biases; ours has their sum for the reset and update gates, whose gradient
    is that of either bias.
    """
    found = from_params(names, gradients)
    for name, gradient in found.items():
        if ".bias_hh_" in name:
            gates = 2 * len(gradient) // 3
            gradient[:gates] = found[name.replace(".bias_hh_", ".bias_ih_")][:gates]
    return found


def _items(case: Case) -> Mapping[str, Items]:
    images, captions, lengths = case.inputs(*INPUTS)
    pairs = len(lengths)
    if (images.ndim, captions.ndim, lengths.ndim) != (3, 2, 1) or not (
        len(images) == len(captions) == pairs
    ):
        raise UserError(
            f"images {list(images.shape)}, captions {list(captions.shape)} and lengths "
            f"{list(lengths.shape)} are no pairs [B,R,D], [B,L] and [B]: get the case again."
        )
    return {
        "image": {
            "regions": jnp.asarray(images, jnp.float32),
            "n_regions": jnp.full(pairs, images.shape[1], jnp.int32),
        },
        "text": {
            "tokens": jnp.asarray(captions, jnp.int32),
            "lengths": jnp.asarray(lengths, jnp.int32),
        },
    }


def _model(case: Case, items: Mapping[str, Items]) -> Model:
    encoder = case.option("encoder", str)
    _, regions, region_dim = items["image"]["regions"].shape
    return get_model(
        "imram",
        variant=case.option("mode", str).removesuffix("_IMRAM"),
        steps=case.option("steps", int),
        dim=case.option("embed_dim", int),
        word_dim=case.option("word_dim", int),
        vocabulary_size=case.option("vocab", int),
        sharpness=case.option("lambda_softmax", float),
        raw_norm=case.option("raw_feature_norm", str),
        memory_norm=case.option("memory_norm", bool),
        region_embedding=ENCODERS.get(encoder, encoder),
        regions=regions,
        region_dim=region_dim,
        # The released code does not mask captions of the same image.
        mask_same_image=False,
        sum_warmup_steps=1,
    )


def _variables(params: Tree) -> Variables:
    return Variables(params, None, None, None)


def _codes(model: Model, params: Tree, items: Mapping[str, Items], train: bool) -> dict[str, Codes]:
    return {
        m: model.encode(_variables(params), m, items[m], train=train, keys=None)[0] for m in items
    }


@partial(jax.jit, static_argnums=0)
def _inferred(model: Model, params: Tree, items: Mapping[str, Items]) -> dict[str, Array]:
    codes = _codes(model, params, items, train=False)
    image, text = ((m, codes[m]) for m in ("image", "text"))
    return {
        "image_emb": codes["image"]["nodes"],
        "caption_emb": codes["text"]["nodes"],
        "caption_vec": _sentences(params["text"]["words"], **items["text"]),
        "scores": model.score(_variables(params), image, text),
    }


def _sentences(
    params: Tree, tokens: Int[Array, "B L"], lengths: Int[Array, " B"]
) -> Float[Array, "B D"]:
    """Normalised mean of both directions' last states, an output that the release never uses."""
    words = params["vectors"][tokens]
    ends = []
    for direction, x in (("forward", words), ("backward", flip(words, lengths))):
        gru = params["gru"][direction]
        states: Any = GRU(len(gru["hidden_bias"])).apply({"params": gru}, x)
        ends.append(states[jnp.arange(len(lengths)), lengths - 1])
    return l2n((ends[0] + ends[1]) / 2)


@partial(jax.jit, static_argnums=0)
@partial(jax.value_and_grad, argnums=1)
def _loss(
    model: Model, params: Tree, items: Mapping[str, Items], step: Int[Array, ""]
) -> Float[Array, ""]:
    return training_loss(model, params, _codes(model, params, items, train=True), step)


CHECKER = Checker(inputs=INPUTS, answers=_answers)
