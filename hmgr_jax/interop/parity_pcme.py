"""Known answers of PCME: both encoders, the loss of given samples with gradients, probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.interop import pcme
from hmgr_jax.interop.known_answers import Answer, Case, Checker, training_loss
from hmgr_jax.interop.names import to_params
from hmgr_jax.models.base import Items, Variables
from hmgr_jax.models.pcme import PCME
from hmgr_jax.shapes import Array, Float, Tree

INPUTS = ("feature_map", "captions", "lengths", "samples_image", "samples_caption")
SIDES = {"image": "image", "text": "caption"}
"""{modality: its name in the arrays of a case}."""


def _answers(case: Case) -> Mapping[str, Answer]:
    feature_map, captions, lengths, *samples = (jnp.asarray(x) for x in case.inputs(*INPUTS))
    cells = feature_map.reshape(*feature_map.shape[:2], -1).swapaxes(1, 2)
    model = _model(case, cells.shape, samples[0].shape)
    items: dict[str, Items] = {
        "image": {"regions": cells, "n_regions": jnp.full(len(cells), cells.shape[1], jnp.int32)},
        "text": {"tokens": captions.astype(jnp.int32), "lengths": lengths.astype(jnp.int32)},
    }
    template = jax.eval_shape(model.init, jax.random.key(0)).params
    match = template.pop("match")
    own = {n: x for n, x in case.state.items() if not n.startswith("image::cnn.")}
    params = to_params(pcme.encoder_names("image::", "text::"), own, template)
    params["match"] = {
        name: jnp.full(match[name].shape, case.option(official, float), jnp.float32)
        for name, official in (("scale", "negative_scale"), ("shift", "shift"))
    }
    given = dict(zip(("image", "text"), samples, strict=True))
    params = jax.tree.map(jnp.asarray, params)
    return {name: Answer(x) for name, x in _found(model, params, items, given).items()}


def _model(case: Case, cells: tuple[int, ...], samples: tuple[int, ...]) -> PCME:
    words, word_dim = case.state["text::embed.weight"].shape
    return PCME(
        dim=samples[2],
        word_dim=word_dim,
        vocabulary_size=words,
        regions=cells[1],
        region_dim=cells[2],
        samples_train=samples[1],
        vib_beta=case.option("vib_beta", float),
        uniform_lambda=case.option("uniform_lambda", float),
    )


@partial(jax.jit, static_argnums=0)
def _found(
    model: PCME, params: Tree, items: Mapping[str, Items], samples: Mapping[str, Array]
) -> dict[str, Array]:
    """All outputs of a case by official name."""
    variables, codes = Variables(params, None, None, None), {}
    found: dict[str, Any] = {}
    for modality, name in SIDES.items():
        side, _ = model.apply_tower(variables, modality, items[modality])
        found[f"{name}_mu"], found[f"{name}_logsigma"] = side.means[:, 0], side.log_sigma
        found[f"{name}_attention"] = side.attention
        codes[modality] = {"mu": side.means[:, 0], "log_sigma": side.log_sigma}

    def loss(match: Tree, given: Mapping[str, Array]) -> Float[Array, ""]:
        of_samples = {m: {**codes[m], "samples": x} for m, x in given.items()}
        return training_loss(model, {**params, "match": match}, of_samples, jnp.int32(0))

    found["loss"], (of_match, of_samples) = jax.value_and_grad(loss, argnums=(0, 1))(
        params["match"], samples
    )
    found["grad_negative_scale"] = of_match["scale"][None]
    found["grad_shift"] = of_match["shift"][None]
    for modality, name in SIDES.items():
        found[f"grad_samples_{name}"] = of_samples[modality]
    sides = [{"samples": samples[m]} for m in SIDES]
    found["match_prob"] = jnp.exp(model.log_probability(variables, sides[0], sides[1]))
    return found


CHECKER = Checker(inputs=INPUTS, answers=_answers)
