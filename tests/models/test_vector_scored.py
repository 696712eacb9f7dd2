"""A two-tower system needs two towers: everything else comes from `RankedVectors`."""

from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.masking import l2n, length_mask, masked_mean
from hmgr_jax.layers.regions import read_regions
from hmgr_jax.layers.words import WordVectors
from hmgr_jax.losses.contrastive import infonce
from hmgr_jax.losses.triplet import negatives, triplet
from hmgr_jax.models.base import LocalAxis, Plan
from hmgr_jax.models.vector_scored import RankedVectors

ROWS, EPOCH = 6, 7
FEATURES = {"image": {"regions": (3, 5)}, "text": {}}


class Regions(nn.Module):
    dim: int

    @nn.compact
    def __call__(self, items, keys):
        x = masked_mean(*read_regions(items, "none", 0.0, 0.0, keys))
        return l2n(Linear(self.dim, name="out")(x))


class Words(nn.Module):
    model: RankedVectors

    @nn.compact
    def __call__(self, items, keys):
        x = WordVectors(self.model.vocabulary_size, self.model.dim, name="words")(items["tokens"])
        return l2n(masked_mean(x, length_mask(items["lengths"], x.shape[1])))


@dataclass(frozen=True)
class MeanOfFragments(RankedVectors):
    def tower(self, modality):
        return Regions(self.dim) if modality == "image" else Words(self)


MODEL = MeanOfFragments(dim=4).fit_to(Plan(100, EPOCH, 11, FEATURES))


@pytest.fixture(scope="module")
def variables():
    return MODEL.init(jax.random.key(0))


def batch():
    rng = np.random.default_rng(0)
    number = np.arange(ROWS, dtype=np.int32)
    image = {"regions": np.float16(rng.standard_normal((ROWS, 3, 5))), "n_regions": number % 3 + 1}
    tokens = rng.integers(1, 11, (ROWS, 4), np.int32)
    text = {"tokens": tokens, "lengths": number % 4 + 1}
    return jax.tree.map(jnp.asarray, {"image": image, "text": text})


def row():
    index = jnp.arange(ROWS)
    return {"index": index, "valid": index < 5, "group": index // 2, "item": index}


KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(ROWS))


def encode(variables):
    return MODEL.encode_batch(variables, batch(), row(), keys=KEYS, axis=LocalAxis())


def test_the_plan_sets_open_sizes_and_the_warm_up():
    assert (MODEL.vocabulary_size, MODEL.regions, MODEL.region_dim) == (11, 3, 5)
    assert MODEL.sum_warmup_steps == EPOCH
    given = MeanOfFragments(regions=2, sum_warmup_steps=0).fit_to(Plan(100, EPOCH, 11, FEATURES))
    assert (given.regions, given.region_dim, given.sum_warmup_steps) == (2, 5, 0)


def test_parts_and_parameters_are_the_two_towers(variables):
    assert MODEL.parts() == {"image": ("image",), "text": ("text",)}
    assert variables.params.keys() == {"image", "text"}
    assert variables.stats is None


def test_a_code_does_not_depend_on_the_batch(variables):
    codes, stats = encode(variables)
    assert stats is None
    one = jax.tree.map(lambda x: x[2:3], batch())
    for modality in MODEL.modalities:
        alone, _ = MODEL.encode(variables, modality, one[modality], train=False, keys=None)
        np.testing.assert_allclose(alone[0], codes[modality][2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("step", [EPOCH - 1, EPOCH])
def test_the_loss_sums_over_negatives_and_then_takes_the_hardest(variables, step):
    codes, _ = encode(variables)
    found = MODEL.loss(variables, codes, row(), step=jnp.int32(step), keys=KEYS, axis=LocalAxis())
    scores = MODEL.score(variables, ("image", codes["image"]), ("text", codes["text"]))
    counted = negatives(row()["valid"], row()["group"])
    expected = triplet(scores, counted, margin=0.2, hard=step >= EPOCH)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    given = scores, row(), jnp.int32(step), LocalAxis()
    of_matrix = MODEL.rank_scores(*given)
    np.testing.assert_allclose(of_matrix, expected, rtol=1e-6)
    assert found[1] == {"triplet": found[0]}


def test_infonce_divides_by_the_learned_temperature(variables):
    model = replace(MODEL, objective="infonce", temperature=0.3)
    params = {**variables.params, **model.loss_params()}
    codes, _ = encode(variables)
    given = variables.replace(params=params)
    found = model.loss(given, codes, row(), step=jnp.int32(0), keys=KEYS, axis=LocalAxis())
    scores = model.score(variables, ("image", codes["image"]), ("text", codes["text"]))
    valid, group = row()["valid"], row()["group"]
    expected = infonce(scores, negatives(valid, group), valid, temperature=0.3)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert found[1] == {"infonce": found[0]}
