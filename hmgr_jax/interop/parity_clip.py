"""Known answers of CLIP and SigLIP: states, vectors, logits, the loss and its gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.interop.clip import CLIP, towers_of
from hmgr_jax.interop.clip_weights import names, params_of
from hmgr_jax.interop.known_answers import RTOL_NORMS, Answer, Case, Checker, in_order
from hmgr_jax.interop.names import from_params
from hmgr_jax.layers.masking import l2n, length_mask
from hmgr_jax.layers.vit import scores
from hmgr_jax.losses.contrastive import infonce, sigmoid_of_vectors
from hmgr_jax.models.base import LocalAxis
from hmgr_jax.shapes import Array, Tree

INPUTS = ("pixel_values", "input_ids", "lengths")


def _answers(case: Case) -> Mapping[str, Answer]:
    try:
        towers = towers_of(case.option("config", dict))
    except (TypeError, ValueError) as error:
        raise UserError(f"its config cannot be used ({error}): get it again.") from None
    pixels, ids, lengths = case.inputs(*INPUTS)
    x, words = jnp.asarray(pixels.transpose(0, 2, 3, 1)), jnp.asarray(ids, jnp.int32)
    image, text = towers.modules()
    # The states of padding, which is in no vector of CLIP's, are those of a masked text.
    valid_words = length_mask(jnp.asarray(lengths), ids.shape[1]) if towers.kind == CLIP else None

    def run(params: Tree) -> tuple[Array, dict[str, Array]]:
        seen: Any = image.apply({"params": params["image"]}, x)
        read: Any = text.apply({"params": params["text"]}, words, valid_words)
        states, vectors = read
        a, b, bias = l2n(seen.vector), l2n(vectors), params.get("bias")
        logits = scores(a, b, params["scale"], bias)
        own = jnp.eye(len(logits), dtype=bool)
        valid = jnp.ones(len(logits), bool)
        if towers.kind == CLIP:
            loss, hidden = infonce(logits, ~own, valid, temperature=1.0), seen.hidden
        else:
            shift = {"scale": jnp.exp(params["scale"]), "bias": bias}
            loss = sigmoid_of_vectors(a, b, valid, None, LocalAxis(), **shift)
            hidden = seen.patches
        return loss, {
            "vision_hidden": hidden,
            "text_hidden": states,
            "image_embeds": a,
            "text_embeds": b,
            "logits_per_image": logits,
        }

    params = jax.tree.map(jnp.asarray, params_of(towers, case.state))
    (loss, found), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(params)
    official = from_params(names(towers), gradient)
    norms = {name: float(np.linalg.norm(np.float64(g))) for name, g in official.items()}
    labels = case.option("grad_names", list)
    ours = {name: Answer(value) for name, value in found.items()}
    norm = Answer(np.array(in_order(norms, labels)), labels, RTOL_NORMS)
    return {**ours, "loss": Answer(loss), "gradnorm": norm}


CHECKER = Checker(inputs=INPUTS, answers=_answers)
