"""Known answers of cross-modal center loss: the loss with its gradients, and mAP of features.

``map_percent`` is JSON, {"image2mesh": percent, ...}, with two digits; a query is in its gallery.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.reading import parse_json
from hmgr_jax.interop.known_answers import Answer, Case, Checker
from hmgr_jax.metrics.directions import direction
from hmgr_jax.metrics.protocols import evaluate_all
from hmgr_jax.models.base import LocalAxis
from hmgr_jax.models.center3d import center_loss

LOSS = ("features", "labels", "centers")
FEATURES = ("image", "mesh", "point")
MAP, LABEL = "map_percent", "label"
POINTS = 0.01
"""Tolerance in percent: the official values are rounded to half of it."""


def _answers(case: Case) -> Mapping[str, Answer]:
    return _of_loss(case) if case.meta.get("model") == "center_loss" else _of_ranking(case)


def _of_loss(case: Case) -> Mapping[str, Answer]:
    features, labels, centers = (jnp.asarray(x) for x in case.inputs(*LOSS))

    def loss(features: jax.Array, centers: jax.Array) -> jax.Array:
        ones = jnp.ones(len(features), jnp.float32)
        return center_loss([features], centers, labels.astype(jnp.int32), ones, LocalAxis())

    value, (of_features, of_centers) = jax.value_and_grad(loss, argnums=(0, 1))(features, centers)
    found = {"loss": value, "grad_features": of_features, "grad_centers": of_centers}
    return {name: Answer(x) for name, x in found.items()}


def _of_ranking(case: Case) -> Mapping[str, Answer]:
    names = list(_official_map(case))
    vectors = dict(zip(FEATURES, case.inputs(*FEATURES), strict=True))
    unit = {m: x / np.linalg.norm(x, axis=1, keepdims=True) for m, x in vectors.items()}
    classes = case.inputs(LABEL)[0].astype(int)
    labels = np.eye(classes.max() + 1, dtype=np.uint8)[classes]
    numbers = np.arange(len(classes))
    found: dict[str, float] = {}
    for a, b in itertools.combinations_with_replacement(FEATURES, 2):
        found |= evaluate_all(
            ("modelnet",),
            unit[a] @ unit[b].T,
            numbers,
            numbers,
            modalities=(a, b),
            labels=dict.fromkeys((a, b), labels),
        )
    return {MAP: Answer([found[f"{name}/mAP"] for name in names], names, rtol=0.0, atol=POINTS)}


def _official_map(case: Case) -> dict[str, float]:
    """The official mAP in percent by direction."""
    every = {direction(a, b) for a, b in itertools.product(FEATURES, repeat=2)}
    try:
        found = {name: float(x) for name, x in parse_json(str(case.arrays[MAP])).items()}
    except (ValueError, TypeError, AttributeError, KeyError):
        found = {}
    if not found or not found.keys() <= every:
        raise UserError(f"its {MAP} is not JSON of numbers by direction: get the case again.")
    return found


def _outputs(case: Case) -> Mapping[str, np.ndarray]:
    if MAP not in case.arrays:
        return {}
    return {MAP: np.array(list(_official_map(case).values()))}


CHECKER = Checker(inputs=(*LOSS, *FEATURES, LABEL), answers=_answers, outputs=_outputs)
