"""A system that gives a tower and a block score inherits everything else from `PairScored`."""

from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import l2n, length_mask, masked_mean
from hmgr_jax.losses.contrastive import infonce
from hmgr_jax.losses.triplet import negatives
from hmgr_jax.models.base import LocalAxis, Plan
from hmgr_jax.models.pair_scored import PairScored, encode_words

COUNT, REGIONS, LONGEST, FEATURES, EPOCH = 3, 4, 6, 5, 7
PLAN = Plan(20, EPOCH, 20, {"image": {"regions": (REGIONS, FEATURES)}, "text": {}})


class Regions(nn.Module):
    size: int

    @nn.compact
    def __call__(self, items, keys):
        mask = length_mask(items["n_regions"], items["regions"].shape[1])
        return l2n(nn.Dense(self.size)(items["regions"].astype(jnp.float32))), mask


class Words(nn.Module):
    model: PairScored

    @nn.compact
    def __call__(self, items, keys):
        x, mask = encode_words(self.model, items, keys)
        return l2n(x), mask


@dataclass(frozen=True)
class MeanNodes(PairScored):
    """The product of mean nodes."""

    def tower(self, modality):
        return Regions(self.dim) if modality == "image" else Words(self)

    def score_block(self, variables, images, texts):
        means = [masked_mean(side["nodes"], side["mask"]) for side in (images, texts)]
        return einsum("id,cd->ic", *means)


@pytest.fixture(scope="module")
def system():
    """The fitted model, its variables and the codes of a batch."""
    rng = np.random.default_rng(0)
    items = {
        "image": {
            "regions": jnp.asarray(rng.standard_normal((COUNT, REGIONS, FEATURES)), jnp.float16),
            "n_regions": jnp.asarray([4, 2, 3], jnp.int32),
        },
        "text": {
            "tokens": jnp.asarray(rng.integers(4, 20, (COUNT, LONGEST)), jnp.int32),
            "lengths": jnp.asarray([6, 2, 4], jnp.int32),
        },
    }
    model = MeanNodes(dim=4, word_dim=3).fit_to(PLAN)
    variables = model.init(jax.random.key(0))
    codes = {
        m: model.encode(variables, m, own, train=True, keys=None)[0] for m, own in items.items()
    }
    return model, variables, codes


def test_sizes_and_a_warm_up_of_one_epoch_come_from_the_plan():
    model = MeanNodes().fit_to(PLAN)
    assert (model.vocabulary_size, model.regions, model.region_dim) == (20, REGIONS, FEATURES)
    assert model.sum_warmup_steps == EPOCH
    assert MeanNodes(sum_warmup_steps=3, vocabulary_size=9).fit_to(PLAN).sum_warmup_steps == 3


def test_matrix_transpose_and_given_pairs_are_the_block_score(system):
    model, variables, codes = system
    image, text = (("image", codes["image"]), ("text", codes["text"]))
    expected = model.score_block(variables, codes["image"], codes["text"])
    scores = model.score(variables, image, text)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.score(variables, text, image), scores.T)
    pairs = model.score_pairs(variables, codes["image"], codes["text"])
    np.testing.assert_allclose(pairs, jnp.diagonal(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [EPOCH - 1, EPOCH])
def test_loss_takes_all_negatives_and_then_the_hardest(system, step):
    model, variables, codes = system
    row = {"valid": jnp.ones(COUNT, bool), "group": jnp.asarray([0, 1, 1])}
    keys = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(COUNT))
    total, terms, _, _ = model.loss(
        variables, codes, row, step=jnp.int32(step), keys=keys, axis=LocalAxis()
    )
    scores = np.asarray(model.score_block(variables, codes["image"], codes["text"]))
    positive, negative = np.diag(scores), np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]], bool)
    rows = np.where(negative, np.maximum(0.2 + scores - positive[:, None], 0), 0)
    columns = np.where(negative, np.maximum(0.2 + scores - positive[None], 0), 0)
    hardest = rows.max(axis=1).sum() + columns.max(axis=0).sum()
    expected = rows.sum() + columns.sum() if step < EPOCH else hardest
    assert float(total) == pytest.approx(expected, rel=1e-4)
    assert float(terms["hardest"]) == pytest.approx(hardest, rel=1e-4)


def test_infonce_divides_by_the_learned_temperature(system):
    model, variables, codes = system
    model = replace(model, objective="infonce", temperature=0.3)
    variables = variables.replace(params={**variables.params, **model.loss_params()})
    row = {"valid": jnp.ones(COUNT, bool), "group": jnp.asarray([0, 1, 1])}
    keys = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(COUNT))
    total, terms, _, _ = model.loss(
        variables, codes, row, step=jnp.int32(0), keys=keys, axis=LocalAxis()
    )
    scores = model.score_block(variables, codes["image"], codes["text"])
    counted = negatives(row["valid"], row["group"])
    expected = infonce(scores, counted, row["valid"], temperature=0.3)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert terms["infonce"] == total


@pytest.mark.parametrize(
    "options", [{"dim": 0}, {"margin": -0.1}, {"sum_warmup_steps": -2}, {"region_scale": "log"}]
)
def test_options_out_of_range_raise(options):
    with pytest.raises(UserError, match=f"model.{next(iter(options))} must be"):
        MeanNodes(**options)
