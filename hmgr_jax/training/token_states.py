"""States of a frozen BERT or CLIP: training captions are read once instead of in every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.data.pipeline import Batch, eval_batches
from hmgr_jax.distributed import hosts, watchdog
from hmgr_jax.leaves import leaf_at
from hmgr_jax.models.text_side import STATES, ReadsWords, tower_states
from hmgr_jax.shapes import Array, Tree
from hmgr_jax.training.experiment import Experiment

MOST_BYTES = 4 << 30
"""Largest size of the states; above it the tower reads the captions in every step."""
BATCH, SHORT = 128, (8, 12, 16)
"""Captions read at once, and padded lengths besides those of training."""


class TokenStates:
    """Adds ``states`` of the tokens of captions to batches, float16 [rows, L, H], 0 at padding.

    This is no source of data, which worker processes would copy with all its states.
    """

    def __init__(self, captions: np.ndarray, lengths: np.ndarray, flat: np.ndarray) -> None:
        self._captions, self._flat = captions, flat
        self._starts = np.cumsum(lengths, dtype=np.int64) - lengths

    def __call__(self, batch: Batch) -> Batch:
        """The batch with states."""
        text, captions = batch["text"], self._captions[batch["row"]["item"]]
        inside = np.arange(text["tokens"].shape[1]) < text["lengths"][:, None]
        owner, place = np.nonzero(inside)
        states = np.zeros((*inside.shape, self._flat.shape[1]), self._flat.dtype)
        states[inside] = self._flat[self._starts[captions][owner] + place]
        return {**batch, "text": text | {STATES: states}}


class _Tower(nn.Module):
    """The states of a system's text tower."""

    model: ReadsWords

    @nn.compact
    def __call__(self, items: Mapping[str, Array]) -> Array:
        return tower_states(self.model, items, None)[0]


def token_states(experiment: Experiment, params: Tree) -> TokenStates | None:
    """States of all tokens of the training split if BERT or CLIP is frozen in every stage.

    None where the model has no such tower or trains it, or where the states would exceed
    `MOST_BYTES`.
    """
    split, model = experiment.data.splits["train"], experiment.model
    if not isinstance(model, ReadsWords) or not model.reads_pieces:
        return None
    source, (path,) = split.sources["text"], model.parts()[model.text]
    width = {"bert": model.bert_width, "clip": model.clip_width}[model.text]
    stages = [experiment.optimizer(stage).factors(params) for stage in experiment.stages()]
    tuned = any(any(jax.tree.leaves(leaf_at(factors, path))) for factors in stages)
    lengths = source.lengths
    if tuned or lengths is None:
        return None
    size, name = 2 * width * int(lengths.sum()), {"bert": "BERT", "clip": "CLIP"}[model.text]
    once, told = size <= MOST_BYTES, f"{len(source)} captions"
    how = "once" if once else "in every step, with its dropout, since their states are too large"
    if hosts.is_first():
        print(f"{name} is frozen: it reads {told} {how} ({size / 1e9:.2f} GB).", flush=True)
    if not once:
        return None
    weights = jax.device_put(jax.device_get(leaf_at(params, path)), jax.local_devices()[0])

    @jax.jit
    def read(weights: Tree, items: Mapping[str, Array]) -> Array:
        states: Any = _Tower(model).apply({"params": {model.text: weights}}, items)
        return jnp.asarray(states, jnp.float16)

    flat = np.empty((int(lengths.sum()), width), np.float16)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    buckets = sorted({*SHORT, *experiment.config.data.buckets})
    for items, _, batch in eval_batches(source, BATCH, buckets=buckets):
        watchdog.report_progress()
        states = np.asarray(read(weights, {name: batch[name] for name in ("tokens", "lengths")}))
        owner, place = np.nonzero(np.arange(states.shape[1]) < batch["lengths"][:, None])
        flat[starts[items][owner] + place] = states[owner, place]
    return TokenStates(split.rows["text"], lengths, flat)
