"""Token states of a frozen BERT: what BERT gives, in its place, and only while it is frozen."""

import clip_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_files import SIZES, written
from layer_cases import random_params

from hmgr_jax.data.pipeline import Batches
from hmgr_jax.layers.bert import Bert
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.leaves import leaf_at
from hmgr_jax.models.text_side import STATES
from hmgr_jax.modes import train_run
from hmgr_jax.training import recipe_file
from hmgr_jax.training.experiment import build
from hmgr_jax.training.token_states import TokenStates, token_states

pytest.importorskip("tokenizers")
# Their vocabularies are a few pieces, their texts are short.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*not in the vocabulary"),
    pytest.mark.filterwarnings("ignore:the program cuts"),
]
BERT = "text/bert"
SMALL = {
    **{f"data.worlds.{split}": "16" for split in ("train", "dev", "test")},
    **{"data.buckets": "24,32", "train.steps": "2", "train.batch_size": "8", "model.dim": "8"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    ids = jnp.zeros((1, 3), jnp.int32)
    params = random_params(Bert(SIZES), ids, ids == 0)
    return written(tmp_path_factory.mktemp("bert") / "bert", jax.device_get(params))


@pytest.fixture(scope="module")
def experiment(folder):
    given = SMALL | {"init.bert": str(folder), "train.frozen": "bert", "model.word_dropout": "0.0"}
    return build(recipe_file.load("configs/worlds.py:vse", given))


@pytest.fixture(scope="module")
def params(experiment):
    return jax.tree.map(jnp.asarray, experiment.first_state().params)


def test_states_are_those_of_bert_without_dropout(experiment, params):
    train = experiment.data.splits["train"]
    read = Batches(train, batch_size=8, seed=0, buckets=(24, 32))[1]
    batch = jax.tree.map(jnp.asarray, token_states(experiment, params)(read)["text"])
    mask = length_mask(batch["lengths"], batch["tokens"].shape[1])
    assert not mask.all()
    own = {"params": leaf_at(params, BERT)}
    expected = Bert(SIZES).apply(own, batch["tokens"], mask)
    np.testing.assert_allclose(batch[STATES], expected, rtol=1e-3, atol=1e-3)
    assert (batch[STATES][~np.asarray(mask)] == 0).all()
    without = {name: x for name, x in batch.items() if name != STATES}
    variables = experiment.first_state().replace(params=params).variables(None)
    encode = jax.jit(
        lambda items: experiment.model.encode(variables, "text", items, train=False, keys=None)[0]
    )
    np.testing.assert_allclose(encode(batch), encode(without), rtol=0, atol=2e-3)


def test_a_tuned_bert_reads_in_every_step(experiment, params, monkeypatch):
    assert token_states(experiment, params) is not None
    with experiment.config.unlocked():
        experiment.config.train.stages = ({"steps": 1}, {"steps": 1, "frozen": ()})
    assert token_states(experiment, params) is None
    with experiment.config.unlocked():
        experiment.config.train.stages = ()
    monkeypatch.setattr("hmgr_jax.training.token_states.MOST_BYTES", 1000)
    assert token_states(experiment, params) is None


def test_a_run_with_a_frozen_bert_trains_the_rest(folder, tmp_path, monkeypatch):
    seen = []
    real = token_states
    monkeypatch.setattr(
        "hmgr_jax.training.loop.token_states",
        lambda *given: seen.append(real(*given)) or seen[-1],
    )
    given = SMALL | {"init.bert": str(folder), "train.frozen": "bert"}
    assert train_run(recipe_file.load("configs/worlds.py:vse", given), tmp_path / "run")
    assert isinstance(seen[0], TokenStates)


def test_states_are_those_of_a_frozen_clip(tmp_path):
    folder, _ = clip_files.written(tmp_path / "clip", "siglip")
    given = {k: v for k, v in SMALL.items() if k != "data.buckets"}
    given |= {"init.clip": str(folder), "train.frozen": "clip"}
    experiment = build(recipe_file.load("configs/worlds.py:vse", given))
    state = experiment.first_state()
    state = state.replace(params=jax.tree.map(jnp.asarray, state.params))
    read = Batches(experiment.data.splits["train"], batch_size=8, seed=0, buckets=(7,))[1]
    batch = jax.tree.map(jnp.asarray, token_states(experiment, state.params)(read)["text"])
    without, variables = {n: x for n, x in batch.items() if n != STATES}, state.variables(None)
    encode = jax.jit(
        lambda items: experiment.model.encode(variables, "text", items, train=False, keys=None)[0]
    )
    assert batch[STATES].shape == (8, 7, 8)
    np.testing.assert_allclose(encode(batch), encode(without), rtol=0, atol=2e-3)
